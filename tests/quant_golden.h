/* Made by tests/tools/mk_quant_golden.py with the PyPI package gguf 0.19.0; do not edit.
 * Type, bytes whose bit 6 is cleared in each block (-1: none), hash of the decoded floats. */
#define GOLDEN_BLOCKS 64

static const struct golden golden[] = {
    { QUANT_F32, { 3, -1 }, 0x661AA9EE8A0ACA48 },
    { QUANT_F16, { 1, -1 }, 0x820A5D3603446F50 },
    { QUANT_BF16, { 1, -1 }, 0x7785E707244A5B09 },
    { QUANT_Q4_0, { 1, -1 }, 0x6354202B7875FF33 },
    { QUANT_Q4_1, { 1, 3 }, 0x30736BC2F3B93A0E },
    { QUANT_Q5_0, { 1, -1 }, 0xC847B9E6F55B9EF2 },
    { QUANT_Q5_1, { 1, 3 }, 0xC7D000600977D679 },
    { QUANT_Q8_0, { 1, -1 }, 0x072B99AD67EC777E },
    { QUANT_Q2_K, { 81, 83 }, 0xECB6BE03ACC61C81 },
    { QUANT_Q3_K, { 109, -1 }, 0x17BF4BB4AB3A951B },
    { QUANT_Q4_K, { 1, 3 }, 0x761FA5155B097CD0 },
    { QUANT_Q5_K, { 1, 3 }, 0xEDE6AB7B1364AE46 },
    { QUANT_Q6_K, { 209, -1 }, 0xF66A9B89910A0567 },
    { QUANT_IQ1_S, { 1, -1 }, 0x37727BF1AAE81613 },
    { QUANT_IQ1_M, { 55, -1 }, 0x09C0C0EC3764BE36 },
    { QUANT_IQ2_XXS, { 1, -1 }, 0x8E47C5C06668FD6F },
    { QUANT_IQ2_XS, { 1, -1 }, 0x1C0B7D4E9D7F6590 },
    { QUANT_IQ2_S, { 1, -1 }, 0xF2ABB7D91EC0E533 },
    { QUANT_IQ3_XXS, { 1, -1 }, 0x23C4EF1E3893371A },
    { QUANT_IQ3_S, { 1, -1 }, 0xA7F0C9B96CB6BFB8 },
    { QUANT_IQ4_NL, { 1, -1 }, 0xF0327289A5F95C29 },
    { QUANT_IQ4_XS, { 1, -1 }, 0x4315C593DBD9E12E },
    { QUANT_TQ1_0, { 53, -1 }, 0x09C9A025F6047123 },
    { QUANT_TQ2_0, { 65, -1 }, 0x92659A893192E58D },
    { QUANT_MXFP4, { -1, -1 }, 0x1CE8D1AB7A09F0AB },
    { QUANT_NVFP4, { -1, -1 }, 0xFFAC588DC2575799 },
    { QUANT_Q1_0, { 1, -1 }, 0x3C685CA6F73D43A5 },
};
