#!/usr/bin/env bash
# Certificates for TLS between worker and stages, with an authority of their own, and the token.
#
#   deploy/certificates.sh [NAME...]
#
# Makes what is missing in certificates/ (RESPAN_CERTIFICATES names another folder), changes
# nothing that is there, and says until when each is good. To renew one, remove its .pem and run this
# again. NAMEs are added to those that new certificates of services are for: names or addresses of
# machines. Run it as RESPAN_USER: only who made the keys can read them.
set -euo pipefail
umask 077
folder=${RESPAN_CERTIFICATES:-$(dirname "$0")/../certificates}
authority_days=3650
days=730
openssl=${OPENSSL:-openssl}

command -v "$openssl" >/dev/null || { echo "install openssl: it makes the certificates" >&2; exit 1; }
mkdir -p "$folder"
cd "$folder"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

new_key() {  # FILE
  "$openssl" ecparam -name prime256v1 -genkey -noout -out "$scratch/key"
  mv -n "$scratch/key" "$1"
}

alternative_names() {  # NAME...
  local name list=
  for name in "$@"; do
    if [[ $name =~ ^[0-9.]+$ || $name == *:* ]]; then list+=,IP:$name; else list+=,DNS:$name; fi
  done
  echo "${list#,}"
}

make_authority() {
  [[ -e authority.pem ]] && return
  [[ -e authority.key ]] || new_key authority.key
  "$openssl" req -x509 -new -key authority.key -sha256 -days "$authority_days" -subj "/CN=RESPAN" \
    -addext keyUsage=critical,keyCertSign,cRLSign -out "$scratch/authority"
  mv -n "$scratch/authority" authority.pem
}

make_certificate() {  # FILE PURPOSE NAME...
  local file=$1 purpose=$2
  shift 2
  [[ -e $file.pem ]] && return
  if [[ ! -e authority.key ]]; then
    echo "$folder has no authority.key to sign $file.pem with: bring it, or begin anew in an empty folder" >&2
    exit 1
  fi
  [[ -e $file.key ]] || new_key "$file.key"
  "$openssl" req -new -key "$file.key" -subj "/CN=$file" -out "$scratch/request"
  cat >"$scratch/extensions" <<END
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=$purpose
subjectAltName=$(alternative_names "$@")
END
  "$openssl" x509 -req -in "$scratch/request" -CA authority.pem -CAkey authority.key -sha256 \
    -set_serial "0x$("$openssl" rand -hex 16)" -days "$days" -extfile "$scratch/extensions" \
    -out "$scratch/certificate" 2>/dev/null
  mv -n "$scratch/certificate" "$file.pem"
}

make_authority
for service in restoration segmentation quantification training; do
  make_certificate "$service" serverAuth "$service" localhost 127.0.0.1 "$@"
done
make_certificate worker clientAuth worker localhost
[[ -e token ]] || "$openssl" rand -hex 24 >token
chmod 600 ./*.pem ./*.key token

for file in *.pem; do
  until=$("$openssl" x509 -noout -enddate -in "$file")
  state=
  "$openssl" x509 -noout -checkend $((30 * 86400)) -in "$file" >/dev/null ||
    state="  <- remove $file, run this again and restart the containers"
  echo "$file is good until ${until#notAfter=}$state"
done
