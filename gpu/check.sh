#!/bin/sh
# Checks the kernels on the device of this machine, in under eight minutes: `sh check.sh PROGRAM OUT`.
#
# PROGRAM is gpu-check, as `cargo xtask gpu-check` builds it; it needs the NVIDIA driver and nothing else. OUT gets table.md and what the
# sanitizer says. Ends with 0 only when every result was the CPU's and the sanitizer, where there is one, found nothing. SMALL=1
# takes small shapes, for a look at this script.
set -u
program=$1
out=$2
mkdir -p "$out"
failed=0

if command -v nvidia-smi >/dev/null; then
    nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.max.sm,memory.total,temperature.gpu --format=csv,noheader
else
    echo "no nvidia-smi here"
fi

timeout 300 "$program" ${SMALL:+--small} --out "$out/table.md"
code=$?
if [ $code -ne 0 ]; then
    echo "FAILED: gpu-check ended with $code (1: a result is not the CPU's, 2: no device, 124: too slow)"
    failed=1
fi

sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | head -n 1)
if [ $code -eq 2 ]; then
    echo "NOT CHECKED: without a device the sanitizer has nothing to do"
elif [ -z "$sanitizer" ]; then
    echo "NOT CHECKED: compute-sanitizer is not on this machine; accesses and races of the kernels were not looked at"
else
    for tool in memcheck racecheck synccheck; do
        timeout 50 "$sanitizer" --tool $tool --error-exitcode 9 --log-file "$out/$tool.log" \
            "$program" --small --seed 1 >"$out/$tool.out" 2>&1
        code=$?
        case $code in
            0) echo "$tool: nothing found" ;;
            9) echo "FAILED: $tool found errors:"; head -n 40 "$out/$tool.log"; failed=1 ;;
            124) echo "NOT CHECKED: $tool took more than 50 s" ;;
            *) echo "NOT CHECKED: $tool ended with $code:"; tail -n 5 "$out/$tool.out" "$out/$tool.log" ;;
        esac
    done
fi

if [ $failed -eq 0 ]; then echo "gpu-check: all good"; else echo "gpu-check: FAILED"; fi
exit $failed
