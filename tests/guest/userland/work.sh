# Run by bash on the host and in the guest, in an empty directory; what it prints must be the same bytes.
# $1: the directory of the sources beside this file.
src=$1
part() { echo "== $*"; }

part bash
declare -A squares
for ((n = 0; n < 2000; n++)); do squares[$n]=$((n * n % 9973)); done
total=0
for key in "${!squares[@]}"; do total=$((total + squares[$key] * (key + 1))); done
echo "$total" "${#squares[@]}" "$(printf '%a %.10g %e' 0.1 3.25 1e300)" "$((-7 / 2))" "$((-7 % 3))" "$((1 << 62))"
[[ "2026-01-31 10:11" =~ ^([0-9]+)-([0-9]+)-([0-9]+) ]] && echo "${BASH_REMATCH[@]}"
for ((n = 0; n < 40; n++)); do (exit $n) || echo -n "$? "; done
echo
sleep 1000 & kill -USR1 $!; wait $!; echo "$?"
trap 'echo got it' USR2; kill -USR2 $$; trap - USR2

part sort, awk, sed
seq 1 20000 > numbers
sort -r numbers | sha256sum
sort -n -k1.3 numbers | cksum
awk '{ s += $1 * $1; p[$1 % 97]++; t += sqrt($1) } END { print s, t, exp(1), sin(1), length(p); for (n = 0; n < 97; n++) printf "%d ", p[n] }' numbers
echo
sed -n 's/\(.\)\(.\)$/\2\1/p' numbers | tail -n 3

part gzip, xz
gzip -9nc numbers > numbers.gz
gzip -dc numbers.gz | cmp - numbers && sha256sum numbers.gz
xz -6 --threads=1 -c numbers > numbers.xz
xz -dc numbers.xz | cmp - numbers && sha256sum numbers.xz

part openssl
openssl dgst -sha512 numbers
openssl dgst -blake2b512 numbers
openssl dgst -sha3-256 numbers
openssl dgst -md5 numbers
key=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
openssl enc -aes-256-cbc -K $key -iv ${key:0:32} -in numbers -out numbers.aes && sha256sum numbers.aes
openssl enc -d -aes-256-cbc -K $key -iv ${key:0:32} -in numbers.aes | cmp - numbers && echo back
openssl enc -chacha20 -K $key -iv ${key:0:32} -in numbers | sha256sum
openssl enc -camellia-128-ctr -K ${key:0:32} -iv ${key:0:32} -in numbers | sha256sum
openssl prime 170141183460469231731687303715884105727

part perl
perl "$src/work.pl"
part python
python3 -S -E "$src/work.py"

part gcc
cp "$src/hello.c" "$src/small.c" "$src/old.s" .
gcc -O2 -o hello hello.c -lm && sha256sum hello && ./hello
gcc -O0 -S -o - hello.c | sha256sum
part 32 bits
gcc -m32 -O1 -ffreestanding -fno-pic -fno-stack-protector -static -nostdlib -o small small.c && sha256sum small && ./small
as --32 -o old.o old.s && ld -m elf_i386 -o old old.o && ./old; echo "$?"
