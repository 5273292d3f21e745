"""What runs inside the measured servers; standard tools only, nothing of Thimble's."""
