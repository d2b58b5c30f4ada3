#!/bin/sh
# Builds the native part with each sanitizer and runs its test program: sanitize.sh [address|thread ...]
# Needs gcc, which brings the sanitizers' runtimes, or clang with a package that has them. Leaves nothing behind.
set -eu
here=$(dirname "$(readlink -f "$0")")
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
compiler=${CC:-$(command -v gcc || command -v clang)}
for kind in "${@:-address thread}"; do
  for sanitizer in $kind; do
    case $sanitizer in
      address) flags=-fsanitize=address,undefined ;;
      thread) flags=-fsanitize=thread ;;
      *) echo "sanitize.sh: unknown sanitizer $sanitizer; address and thread are known" >&2; exit 2 ;;
    esac
    "$compiler" -std=c17 -O1 -g -Wall -Wextra -Werror $flags -fno-sanitize-recover=all -pthread -o "$out/$sanitizer" \
      "$here/tests/native_test.c" "$here/creator.c" "$here/mapping.c" "$here/slot_table.c" "$here/stacks.c"
    ASAN_OPTIONS=detect_leaks=1 TSAN_OPTIONS=halt_on_error=1 "$out/$sanitizer"
    echo "native: $sanitizer: nothing found"
  done
done
