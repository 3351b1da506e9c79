"""What `vmrun-img --help` prints: the syntax of each command, as scripts look for it, and what the words mean."""

from __future__ import annotations

from vmrun.backends.block.images import FILTERS, MAPPED, PROTOCOLS

_IMAGE = "[--object objectdef] [--image-opts]"
# after a command's name
SYNTAX = {
    "amend": f"{_IMAGE} [-p] [-q] [-f fmt] [-t cache] [--force] -o options filename",
    "bench": "[-c count] [-d depth] [-f fmt] [--flush-interval=flush_interval] [-i aio] [-n] [--no-drain] [-o offset] "
    "[--pattern=pattern] [-q] [-s buffer_size] [-S step_size] [-t cache] [-w] [-U] filename",
    "bitmap": "(--merge SOURCE | --add | --remove | --clear | --enable | --disable)... "
    "[-b source_file [-F source_fmt]] "
    "[-g granularity] [--object objectdef] [--image-opts | -f fmt] filename bitmap",
    "check": f"{_IMAGE} [-q] [-f fmt] [--output=ofmt] [-r [leaks | all]] [-T src_cache] [-U] filename",
    "commit": f"{_IMAGE} [-q] [-f fmt] [-t cache] [-b base] [-r rate_limit] [-d] [-p] filename",
    "compare": f"{_IMAGE} [-f fmt] [-F fmt] [-T src_cache] [-p] [-q] [-s] [-U] filename1 filename2",
    "convert": f"{_IMAGE} [--target-image-opts] [--target-is-zero] [--bitmaps [--skip-broken-bitmaps]] [-U] [-C] [-c] "
    "[-p] [-q] [-n] [-f fmt] [-t cache] [-T src_cache] [-O output_fmt] [-B backing_file [-F backing_fmt]] [-o options] "
    "[-l snapshot_param] [-S sparse_size] [-r rate_limit] [-m num_coroutines] [-W] [--salvage] "
    "filename [filename2 [...]] output_filename",
    "create": "[--object objectdef] [-q] [-f fmt] [-b backing_file [-F backing_fmt]] [-u] [-o options] filename [size]",
    "dd": "[--image-opts] [-U] [-f fmt] [-O output_fmt] [bs=block_size] [count=blocks] [skip=blocks] "
    "if=input of=output",
    "info": f"{_IMAGE} [-f fmt] [--output=ofmt] [--backing-chain] [-U] filename",
    "io": "[-f fmt] [-c command]... [-r] [-s] [-n] [-t cache] [-d discard] [--image-opts] [-U] filename",
    "map": f"{_IMAGE} [-f fmt] [--start-offset=offset] [--max-length=len] [--output=ofmt] [-U] filename",
    "measure": "[--output=ofmt] [-O output_fmt] [-o options] [--size N | "
    f"{_IMAGE} [-f fmt] [-l snapshot_param] filename]",
    "rebase": f"{_IMAGE} [-U] [-q] [-f fmt] [-t cache] [-T src_cache] [-p] [-u] "
    "-b backing_file [-F backing_fmt] filename",
    "resize": f"{_IMAGE} [-f fmt] [--preallocation=prealloc] [-q] [--shrink] filename [+ | -]size",
    "serve": "exports an image as a network block device; vmrun img serve --help",
    "snapshot": f"{_IMAGE} [-U] [-q] [-l | -a snapshot | -c snapshot | -d snapshot] filename",
}
WORDS = """\
  fmt, output_fmt   format of an image; what the file begins with decides when it is not said
  size, offset, …   in bytes, or with k, M, G, T, P, E for powers of 1024
  cache, src_cache  none, writeback, writethrough, directsync, unsafe (convert's targets, when nothing is said)
  options           name=value,…; `-o help` lists them
  ofmt              human or json
  prealloc          off, metadata, falloc, full
  -c                compress (qcow2, vmdk)            -p  show progress          -q  say nothing but errors
  -n                the target is there already       -U  the image may be in use (what is read may be torn)
  -u                look at no backing file           -W  write in any order     -m  so many at a time
"""


def usage(program: str) -> str:
    formats = sorted({*FILTERS, *MAPPED, *PROTOCOLS, "raw", "qcow2"})
    rows = "".join(f"  {name} {words}\n" for name, words in SYNTAX.items())
    return (
        f"usage: {program} [-h | --help] [-V | --version] COMMAND [OPTION…]\n\n"
        f"The command line is qemu-img's. Command syntax:\n{rows}\nwhere\n{WORDS}\n"
        f"Supported formats: {' '.join(formats)}\n"
    )
