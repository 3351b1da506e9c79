"""The opcode maps of x86 as a table of words, without those with a VEX prefix (vexcodes.py).

A row is `opcodes: words`. Opcodes are hexadecimal, `80-83`, separated by commas; `/4` behind them is the modrm.reg of a
group, `/4-7` several. A row with `mem` or `reg` in a group says only what that half (modrm.mod) of it does.

    m               has a modrm                     mem, reg        only with a memory, a register operand
    ib ub iw iz iv  immediate: sign-extended byte, unsigned byte, unsigned word, 2 or 4 bytes, up to 8 bytes
    jb jz           displacement of a branch        ptr, moffs, enter: a far pointer, an address, iw and ub
    sys, fpu        whose emitter; else integer     jump, cond      ends a block: leaves, or a conditional branch
    d64, f64        operand size 64 in long mode: by default, always
    no64            not in long mode                lock            LOCK is allowed with a memory operand
    r=, w=          status flags read; surely written or left undefined (letters c p a z s o, `*` all of them)
    cc              reads what the condition in the opcode's low nibble needs
    np 66 f3 f2     the mandatory prefixes it exists with; without any of these words prefixes mean nothing special
    count           a shift by an immediate, which writes nothing when it is 0
    rep             writes nothing with a repeat prefix (the count may be 0)
    creg            the modrm is two registers whatever mod says

System instructions read all flags unless they say otherwise. Only those that surely leave the block are `jump`:
the emitters may end a block behind any other. An instruction that writes flags on some condition only (a shift by CL)
has no `w`: nothing before it is dead, and its emitter must not look at what is live.

Sources: Intel SDM volume 2 appendix A; AMD APM volume 3 appendix A.
"""

ONE = """
00,01,08,09,20,21,28,29,30,31: m lock w=*
10,11,18,19: m lock r=c w=*
02,03,0A,0B,22,23,2A,2B,32,33,38-3B: m w=*
12,13,1A,1B: m r=c w=*
04,0C,24,2C,34,3C: ib w=*
05,0D,25,2D,35,3D: iz w=*
14,1C: ib r=c w=*
15,1D: iz r=c w=*
06,07,0E,16,17,1E,1F: sys no64
27,2F: no64 r=ac w=*
37,3F: no64 r=a w=*
40-4F: no64 w=pazso
50-5F: d64
60,61: no64
62: m mem no64 sys
63: m no64 sys w=z
68: iz d64
69: m iz w=*
6A: ib d64
6B: m ib w=*
6C-6F: sys
70-7F: jb cond f64 cc
80/0,1,4,5,6: m ib lock w=*
80/2,3: m ib lock r=c w=*
80/7: m ib w=*
81/0,1,4,5,6: m iz lock w=*
81/2,3: m iz lock r=c w=*
81/7: m iz w=*
82/0,1,4,5,6: m ib lock no64 w=*
82/2,3: m ib lock no64 r=c w=*
82/7: m ib no64 w=*
83/0,1,4,5,6: m ib lock w=*
83/2,3: m ib lock r=c w=*
83/7: m ib w=*
84,85: m w=*
86,87: m lock
88-8B: m
8C: m sys
8D: m mem
8E: m sys
8F/0: m d64
90-99:
9A: ptr no64 sys jump
9B: fpu
9C: sys d64
9D: sys d64 w=*
9E: w=pazsc
9F: r=pazsc
A0-A3: moffs
A4,A5:
A6,A7: rep w=*
A8: ib w=*
A9: iz w=*
AA-AD:
AE,AF: rep w=*
B0-B7: ib
B8-BF: iv
C0/0,1,C1/0,1: m ib count w=co
C0/2,3,C1/2,3: m ib count r=c w=co
C0/4-7,C1/4-7: m ib count w=*
C2: iw jump f64
C3: jump f64
C4,C5: m mem no64 sys
C6/0: m ib
C6/7: m reg ib sys
C7/0: m iz
C7/7: m reg jz sys jump
C8: enter d64
C9: d64
CA: iw sys jump
CB: sys jump
CC: sys jump
CD: ub sys jump
CE: sys no64
CF: sys jump
D0/0,1,D1/0,1: m w=co
D0/2,3,D1/2,3: m r=c w=co
D0/4-7,D1/4-7: m w=*
D2/0,1,4-7,D3/0,1,4-7: m
D2/2,3,D3/2,3: m r=c
D4,D5: ib no64 w=*
D6: no64 r=c
D7:
D8,D9,DC-DE: m fpu
DA,DB,DF: m fpu r=pzc
E0,E1: jb cond f64 r=z
E2,E3: jb cond f64
E4-E7: ub sys
E8: jz jump f64
E9: jz jump f64
EA: ptr no64 sys jump
EB: jb jump f64
EC-EF: sys
F1: sys jump
F4: sys jump
F5: r=c w=c
F6/0,1: m ib w=*
F7/0,1: m iz w=*
F6/2,F7/2: m lock
F6/3,F7/3: m lock w=*
F6/4-7,F7/4-7: m w=*
F8,F9: w=c
FA,FB: sys
FC,FD:
FE/0,1,FF/0,1: m lock w=pazso
FF/2,4: m jump f64
FF/3,5: m mem sys jump
FF/6: m d64
"""

# 0F. SYSCALL and its like are judged when they run.
TWO = """
00/0-3: m sys
00/4,5: m sys w=z
01/0-4,6,7: m sys mem
01/0-7: m sys reg
02,03: m sys w=z
05,07: sys jump
06,08,09: sys
0D,18-1F: m
10,11: m fpu np 66 f3 f2
12: m fpu np 66 f3 f2
13: m mem fpu np 66
14,15: m fpu np 66
16: m fpu np 66 f3
17: m mem fpu np 66
20,22: m creg f64 sys lock
21,23: m creg f64 sys
28,29: m fpu np 66
2A: m fpu np 66 f3 f2
2B: m mem fpu np 66 f3 f2
2C,2D: m fpu np 66 f3 f2
2E,2F: m fpu np 66 w=*
30-33: sys
34,35: sys jump
40-4F: m cc
50: m reg fpu np 66
51: m fpu np 66 f3 f2
52,53: m fpu np f3
54-57: m fpu np 66
58-5A,5C-5F: m fpu np 66 f3 f2
5B: m fpu np 66 f3
60-6B: m fpu np 66
6C,6D: m fpu 66
6E: m fpu np 66
6F: m fpu np 66 f3
70: m ub fpu np 66 f3 f2
71/2,4,6,72/2,4,6,73/2,6: m ub reg fpu np 66
73/3,7: m ub reg fpu 66
74-76: m fpu np 66
77: fpu np
78/0: m reg iw fpu 66 f2
78/1-7: m reg iw fpu f2
79: m reg fpu 66 f2
7C,7D: m fpu 66 f2
7E,7F: m fpu np 66 f3
80-8F: jz cond f64 cc
90-9F: m cc
A0,A1,A8,A9: sys d64
A2: sys
A3: m w=cpaso
A4,AC: m ub count w=*
A5,AD: m
AA: sys jump
AB,B3,BB: m lock w=cpaso
AE/0-3: m mem fpu np
AE/4,5: m mem sys np
AE/6: m mem sys np 66
AE/7: m mem np 66
AE/0-3: m reg sys f3
AE/5-7: m reg np
AF: m w=*
B0,B1: m lock w=*
B2,B4,B5: m mem sys
B6,B7,BE,BF: m
B8: m f3 w=*
BA/4: m ub w=cpaso
BA/5-7: m ub lock w=cpaso
BC,BD: m w=*
C0,C1: m lock w=*
C2: m ub fpu np 66 f3 f2
C3: m mem fpu np
C4: m ub fpu np 66
C5: m reg ub fpu np 66
C6: m ub fpu np 66
C7/1: m mem lock w=z
C7/3-5: m mem sys np
C7/6: m reg sys np 66 w=*
C7/7: m reg sys np 66 f3
C8-CF:
D0: m fpu 66 f2
D1-D5: m fpu np 66
D6: m fpu 66 f3 f2
D7: m reg fpu np 66
D8-E5: m fpu np 66
E6: m fpu 66 f3 f2
E7: m mem fpu np 66
E8-EF: m fpu np 66
F0: m mem fpu f2
F1-F6: m fpu np 66
F7: m reg fpu np 66
F8-FE: m fpu np 66
"""

# 0F 38
THREE_38 = """
00-0B,1C-1E: m fpu np 66
10,14,15,20-25,28,29,2B,30-35,37-41: m fpu 66
17: m fpu 66 w=*
2A: m mem fpu 66
DB-DF: m fpu 66
F0,F1: m np 66 f2
82: m mem sys 66
C8-CD: m fpu np
F6: m sys 66 f3
"""

# 0F 3A
THREE_3A = """
08-0E,14-17,20-22,40-42,44,DF: m ub fpu 66
0F: m ub fpu np 66
CC: m ub fpu np
60-63: m ub fpu 66 w=*
"""

FLAGS = {"c": 0x01, "p": 0x04, "a": 0x10, "z": 0x40, "s": 0x80, "o": 0x800}
ALL_FLAGS = sum(FLAGS.values())
CONDITIONS = ("o", "c", "z", "cz", "s", "p", "so", "soz")


def flag_mask(letters: str) -> int:
    """The F_… bits of some letters; `*` is all six."""
    return ALL_FLAGS if letters == "*" else sum(FLAGS[letter] for letter in letters)


def spans(text: str) -> list[int]:
    """`1C-1E` as numbers."""
    first, _, last = text.partition("-")
    return list(range(int(first, 16), int(last or first, 16) + 1))


def lines(table: str) -> list[tuple[list[tuple[int, int | None]], list[str]]]:
    """([(opcode, modrm.reg or None), …], words) of every row.

    After `F6/4` plain numbers below 8 go on with the group's registers; an opcode is always two digits.
    """
    found = []
    for line in table.strip().splitlines():
        heads, _, words = line.partition(":")
        group: list[int] = []
        places: list[tuple[int, int | None]] = []
        for head in heads.split(","):
            opcodes, slash, regs = head.partition("/")
            if slash:
                group = spans(opcodes)
            elif len(head.partition("-")[0]) == 1:
                regs, slash = head, "/"
            if slash:
                places += [(opcode, reg) for opcode in group for reg in spans(regs)]
            else:
                places += [(opcode, None) for opcode in spans(opcodes)]
        found.append((places, words.split()))
    return found


def rows(table: str) -> list[tuple[int, int | None, list[str]]]:
    """(opcode, modrm.reg or None, words) of every entry, in the order of the table."""
    return [(opcode, reg, words) for places, words in lines(table) for opcode, reg in places]
