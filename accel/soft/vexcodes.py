"""The opcode maps of VEX as a table of words: AVX, AVX2, FMA, F16C, BMI1, BMI2, and AES and PCLMULQDQ with VEX.

A row is `opcodes: words` as in opcodes.py, for each of the mandatory prefixes it names (np 66 f3 f2). Operands:

    V               modrm.reg, an XMM or YMM register, is written; `rV`: it is read too
    H               vvvv is a vector that is read; `wH`: one that is written. Without, vvvv must not be used
    W               modrm.rm is a vector, or memory
    E               modrm.rm is a general register, or memory; 8 bytes with VEX.W in 64-bit code
    G               modrm.reg is a general register that is written; of `bmi` instructions `rG`, `B` and `wB` say it of
                    vvvv and modrm.reg
    oW, oE          modrm.rm is written, modrm.reg read (a vector)
    flags           the result is flags, modrm.reg is read; both operands are vectors
    is4             another vector in the upper half of the immediate
    mov             W to V or V to W with nothing done to it

    x h q e         size of the operand in memory: all of the vector, half of it, a quarter, an eighth
    m1 m2 m4 m8 m16 bytes; `my`: 4 or 8 by VEX.W; `dup`: 8 or 32 by VEX.L
    al              it is aligned to its size
    l0 l1 lig       VEX.L must be 0, must be 1, is ignored; else it is the vector's length
    w0 w1           VEX.W must be so; else it is ignored, or part of E and `my`
    ib              an immediate byte
    fp              rounds, or raises exceptions: MXCSR counts
    avx2 a2 …       the feature; `a2` is AVX for 128 and AVX2 for 256 bits, aes and clmul so with VAES and VPCLMULQDQ
    mem, reg        only with an operand in memory, with a register
    w=*             flags that are written or left undefined
    masked, gather, zero, mxcsr, bytes, strings     instructions that have functions of their own

Source: Intel SDM volume 2 (the tables of each instruction, and 2.3).
"""

ONE = """
10: V W x mov np 66
10: mem V W m4 f3
10: mem V W m8 f2
10: reg V H W lig f3 f2
11: oW x mov np 66
11: mem oW m4 f3 lig
11: mem oW m8 f2 lig
11: reg oW H lig f3 f2
12: V H W m8 l0 np
12: mem V H W m8 l0 66
12: V W x f3
12: V W dup f2
13: mem oW m8 l0 np 66
14,15: V H W x np 66
16: V H W m8 l0 np
16: mem V H W m8 l0 66
16: V W x f3
17: mem oW m8 l0 np 66
28: V W x al mov np 66
29: oW x al mov np 66
2A: V H E my lig fp f3 f2
2B: mem oW x al mov np 66
2C,2D: G W m4 lig fp f3
2C,2D: G W m8 lig fp f2
2E,2F: flags W m4 lig fp np w=*
2E,2F: flags W m8 lig fp 66 w=*
50: reg G W np 66
51: V W x fp np 66
51: V H W m4 lig fp f3
51: V H W m8 lig fp f2
52,53: V W x np
52,53: V H W m4 lig f3
54-57: V H W x np 66
58,59,5C-5F: V H W x fp np 66
58,59,5A,5C-5F: V H W m4 lig fp f3
58,59,5A,5C-5F: V H W m8 lig fp f2
5A: V W h fp np
5A: V W x fp 66
5B: V W x fp np 66 f3
60-6D: V H W x a2 66
6E: V E my l0 66
6F: V W x al mov 66
6F: V W x mov f3
70: V W x ib a2 66 f3 f2
71/2,71/4,71/6,72/2,72/4,72/6,73/2,73/3,73/6,73/7: reg wH W ib a2 66
74-76: V H W x a2 66
77: zero np
7C,7D: V H W x fp 66 f2
7E: oE my l0 66
7E: V W m8 l0 f3
7F: oW x al mov 66
7F: oW x mov f3
AE/2,3: mem mxcsr m4 l0 np
C2: V H W x ib fp np 66
C2: V H W m4 ib lig fp f3
C2: V H W m8 ib lig fp f2
C4: V H E m2 ib l0 66
C5: reg G W ib l0 66
C6: V H W x ib np 66
D0: V H W x fp 66 f2
D1-D3,E1,E2,F1-F3: V H W m16 a2 66
D4,D5,D8-E0,E3-E5,E8-EF,F4-F6,F8-FE: V H W x a2 66
D6: oW m8 l0 66
D7: reg G W a2 66
E6: V W x fp 66 f2
E6: V W h f3
E7: mem oW x al mov 66
F0: mem V W x mov f2
F7: reg bytes l0 66
"""

TWO = """
00-0B: V H W x a2 66
0C,0D: V H W x w0 66
0E,0F: flags W x w0 66 w=*
13: V W h w0 fp f16c 66
16: V H W x l1 w0 avx2 66
17: flags W x 66 w=*
18: mem V W m4 w0 66
18: reg V W w0 avx2 66
19: mem V W m8 w0 l1 66
19: reg V W w0 l1 avx2 66
1A: mem V W m16 w0 l1 66
1C-1E: V W x a2 66
20,23,25,30,33,35: V W h a2 66
21,24,31,34: V W q a2 66
22,32: V W e a2 66
28,29,2B,37-40: V H W x a2 66
2A: mem V W x al a2 66
2C-2F: mem masked x w0 H 66
36: V H W x l1 w0 avx2 66
41: V W x l0 66
45,47: V H W x avx2 66
46: V H W x w0 avx2 66
58: V W m4 w0 avx2 66
59: V W m8 w0 avx2 66
5A: mem V W m16 l1 w0 avx2 66
78: V W m1 w0 avx2 66
79: V W m2 w0 avx2 66
8C,8E: mem masked x H avx2 66
90-93: mem gather H avx2 66
96-98,9A,9C,9E,A6-A8,AA,AC,AE,B6-B8,BA,BC,BE: rV H W x fp fma 66
99,9B,9D,9F,A9,AB,AD,AF,B9,BB,BD,BF: rV H W my lig fp fma 66
DB: V W x l0 aes 66
DC-DF: V H W x aes 66
F2: bmi G B E my l0 bmi1 np w=*
F3/1,F3/2,F3/3: bmi wB E my l0 bmi1 np w=*
F5,F7: bmi G B E my l0 np w=*
F5: bmi G B E my l0 bmi2 f3 f2
F6: bmi G wB E my l0 bmi2 f2
F7: bmi G B E my l0 bmi2 66 f3 f2
"""

THREE = """
00,01: V W x ib l1 w1 avx2 66
02: V H W x ib w0 avx2 66
04,05: V W x ib w0 66
06: V H W x ib l1 w0 66
08,09: V W x ib fp 66
0A: V H W m4 ib lig fp 66
0B: V H W m8 ib lig fp 66
0C,0D: V H W x ib 66
0E,0F: V H W x ib a2 66
14: oE m1 ib l0 66
15: oE m2 ib l0 66
16: oE my ib l0 66
17: oE m4 ib l0 66
18: V H W m16 ib l1 w0 66
19: oW m16 ib l1 w0 66
1D: oW h ib w0 fp f16c 66
20: V H E m1 ib l0 66
21: V H W m4 ib l0 66
22: V H E my ib l0 66
38: V H W m16 ib l1 w0 avx2 66
39: oW m16 ib l1 w0 avx2 66
40: V H W x ib fp 66
41: V H W x ib l0 fp 66
42: V H W x ib a2 66
44: V H W x ib clmul 66
46: V H W x ib l1 w0 avx2 66
4A,4B: V H W x is4 w0 66
4C: V H W x is4 w0 a2 66
60-63: strings W x ib l0 66 w=*
DF: V W x ib l0 aes 66
F0: bmi G E my ib l0 bmi2 f2
"""
# F5 and F7 without a prefix: BZHI is BMI2's, BEXTR BMI1's (vex.pyx)
