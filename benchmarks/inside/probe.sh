#!/bin/sh
# Runs in the peer once it is ready and prints one JSON line: memory and processor time of an idle server.
#   bench.probe=SETTLE,OVER   on the kernel command line: seconds to settle, seconds to watch
# The same figures as probe.py's, by the same definitions: private memory is Private_Clean + Private_Dirty of every
# user process but this probe, processor time is the user and system time of the same processes.
words=$(cat /proc/cmdline)
given=${words##*bench.probe=}
given=${given%% *}
settle=${given%%,*}
over=${given##*,}

ticks() {  # user and system time of all processes with memory of their own, but us and our children
    for stat in /proc/[0-9]*/stat; do
        read -r line <"$stat" 2>/dev/null || continue
        pid=${line%% *}
        rest=${line##*) }
        set -- $rest
        [ "$2" = 2 ] || [ "$pid" = 2 ] && continue
        [ "$pid" = $$ ] || [ "$2" = $$ ] && continue
        echo "$pid $((${12} + ${13}))"
    done
}

sleep "$settle"
sync
before=$(ticks)
written_before=$(awk '$3 ~ /^(vd|sd|nvme)/ { sum += $10 } END { print sum * 512 }' /proc/diskstats)
sleep "$over"
after=$(ticks)
written_after=$(awk '$3 ~ /^(vd|sd|nvme)/ { sum += $10 } END { print sum * 512 }' /proc/diskstats)
cpu=$(printf '%s\n-\n%s\n' "$before" "$after" | awk '
    $1 == "-" { second = 1; next }
    !second { was[$1] = $2 }
    second { sum += $2 - was[$1] }
    END { printf "%.2f", sum / 100 }')
private=0
processes=0
for rollup in /proc/[0-9]*/smaps_rollup; do
    pid=${rollup#/proc/}
    pid=${pid%/*}
    [ "$pid" = $$ ] && continue
    kib=$(awk '/^Private_(Clean|Dirty):/ { sum += $2 } END { if (NR) print sum }' "$rollup" 2>/dev/null)
    [ -n "$kib" ] || continue
    private=$((private + kib))
    processes=$((processes + 1))
done
awk -v cpu="$cpu" -v over="$over" -v private="$private" -v processes="$processes" \
    -v written=$((written_after - written_before)) '
    /^MemTotal:/ { total = $2 }
    /^MemAvailable:/ { available = $2 }
    END {
        printf "probe: {\"total_kib\": %d, \"available_kib\": %d, \"private_kib\": %d, \"processes\": %d, ", \
            total, available, private, processes
        printf "\"cpu_s\": %s, \"over_s\": %d, \"written_bytes\": %d}\n", cpu, over, written
    }' /proc/meminfo
