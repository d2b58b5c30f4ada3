#!/usr/bin/env bash
# Installs the system packages that the test cluster, the images and the native tests need. Idempotent: without anything
# missing it does nothing and needs no root. Debian and its kin only; elsewhere it says what is wanted.
set -euo pipefail

# program or file to look for -> package
wanted=(
  "gcc gcc" "make make" "pkg-config pkg-config"
  "buildah buildah" "mmdebstrap mmdebstrap"
  "nft nftables" "conntrack conntrack" "ip iproute2" "nsenter util-linux" "setpriv util-linux" "wrk wrk"
  "/usr/include/seccomp.h libseccomp-dev" "/usr/include/stdio.h libc6-dev"
)

PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
missing=()
for pair in "${wanted[@]}"; do
  read -r probe package <<<"$pair"
  if [[ $probe == /* ]]; then [[ -e $probe ]] && continue; else command -v "$probe" >/dev/null && continue; fi
  missing+=("$package")
done
[[ ${#missing[@]} -eq 0 ]] && exit 0

if ! command -v apt-get >/dev/null; then
  echo "these packages are missing (Debian's names): ${missing[*]}; this system has no apt-get, install them by hand" >&2
  exit 1
fi
if [[ $EUID -ne 0 ]]; then
  echo "these packages are missing: ${missing[*]}; run this as root, or: sudo apt-get install ${missing[*]}" >&2
  exit 1
fi
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
