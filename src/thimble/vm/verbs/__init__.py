"""What is asked of VMs over the API: power, create, reconfigure."""
