# Sourced by ./run, ./test and ./bench: everything they need on a fresh Debian 12 or 13, quick when it is there.
#   prepare run|dev    makes .venv with the pinned requirements, installs the Debian packages of tools/programs.txt,
#                      and leaves a PATH that holds nothing but the programs listed there
# shellcheck shell=sh

say() { printf 'thimble: %s\n' "$*" >&2; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

need_packages() {
    missing=
    for package; do
        case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) in installed) ;; *) missing="$missing $package" ;; esac
    done
    [ -z "$missing" ] && return 0
    say "installing Debian packages:$missing"
    # shellcheck disable=SC2086
    { as_root apt-get -qq update && as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq install --yes --no-install-recommends $missing; } >/dev/null || {
        say "could not install:$missing (is this Debian 12 or 13, with root or sudo?)"
        exit 1
    }
}

prepare() {
    requirements=requirements/$([ "$1" = dev ] && echo dev || echo cli).txt
    python=$(command -v python3) || { say "python3 (3.11 or later) is missing: apt-get install python3"; exit 1; }
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        say "$python is too old: Python 3.11 or later is needed"
        exit 1
    }
    declared=$(sed -E '/^(#|$)/d' tools/programs.txt | if [ "$1" = dev ]; then cat; else grep '^run '; fi)
    # shellcheck disable=SC2046
    need_packages ca-certificates $(printf '%s\n' "$declared" | awk '{ print $3 }' | sort -u)
    "$python" -c 'import ensurepip' 2>/dev/null || need_packages python3-venv
    stamp=.venv/.thimble-$1
    wanted=$("$python" -V; cksum requirements/*.txt)
    [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] || make_python "$1"
    link_programs "$1"
    PATH=$PWD/.venv/programs/$1
    export PATH
}

make_python() {
    say "making the Python environment in .venv (pinned, with hashes)"
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    .venv/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes -r "$requirements"
    .venv/bin/python -c 'import pathlib, sysconfig; p = pathlib.Path(sysconfig.get_path("purelib"), "thimble-src.pth"); p.write_text(str(pathlib.Path("src").resolve()) + "\n")'
    printf '#!/bin/sh\nexec "${0%%/*}/python" -m thimble.cli.main "$@"\n' >.venv/bin/thimble
    chmod +x .venv/bin/thimble
    printf '%s\n' "$wanted" >"$stamp"
}

# Exactly the declared programs, as links in .venv/programs/run or …/dev. Debian's own, whatever /usr/local has.
link_programs() {
    links=.venv/programs/$1
    mkdir -p "$links"
    printf '%s\n' "$declared" | while read -r _ program package _; do
        for folder in /usr/sbin /usr/bin /sbin /bin none; do [ -x "$folder/$program" ] && break; done
        [ "$folder" != none ] || { say "the package $package has no $program (tools/programs.txt)"; exit 1; }
        [ "$links/$program" -ef "$folder/$program" ] || ln -sf "$folder/$program" "$links/$program"
    done
    for link in "$links"/*; do
        case "$declared" in *" ${link##*/} "*) ;; *) rm "$link" ;; esac
    done
}
