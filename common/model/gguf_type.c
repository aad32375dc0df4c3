#include "common/model/gguf_private.h"

#include <stdarg.h>
#include <stdio.h>

struct tensor_type {
    const char *name;
    uint32_t values, bytes; /* of one block */
};

/* By the number in the file.  Types that this system does not compute with are listed all the same:
 * their tensors can be bounds-checked, and refused by name.  Numbers left out were withdrawn. */
static const struct tensor_type tensor_types[] = {
    [0] = {"F32", 1, 4},         [1] = {"F16", 1, 2},         [2] = {"Q4_0", 32, 18},
    [3] = {"Q4_1", 32, 20},      [6] = {"Q5_0", 32, 22},      [7] = {"Q5_1", 32, 24},
    [8] = {"Q8_0", 32, 34},      [9] = {"Q8_1", 32, 36},      [10] = {"Q2_K", 256, 84},
    [11] = {"Q3_K", 256, 110},   [12] = {"Q4_K", 256, 144},   [13] = {"Q5_K", 256, 176},
    [14] = {"Q6_K", 256, 210},   [15] = {"Q8_K", 256, 292},   [16] = {"IQ2_XXS", 256, 66},
    [17] = {"IQ2_XS", 256, 74},  [18] = {"IQ3_XXS", 256, 98}, [19] = {"IQ1_S", 256, 50},
    [20] = {"IQ4_NL", 32, 18},   [21] = {"IQ3_S", 256, 110},  [22] = {"IQ2_S", 256, 82},
    [23] = {"IQ4_XS", 256, 136}, [24] = {"I8", 1, 1},         [25] = {"I16", 1, 2},
    [26] = {"I32", 1, 4},        [27] = {"I64", 1, 8},        [28] = {"F64", 1, 8},
    [29] = {"IQ1_M", 256, 56},   [30] = {"BF16", 1, 2},       [34] = {"TQ1_0", 256, 54},
    [35] = {"TQ2_0", 256, 66},   [39] = {"MXFP4", 32, 17},
};

struct value_type {
    const char *name;
    uint32_t bytes;
};

static const struct value_type value_types[GGUF_VALUE_TYPES] = {
    [GGUF_U8] = {"u8", 1},       [GGUF_I8] = {"i8", 1},     [GGUF_U16] = {"u16", 2},
    [GGUF_I16] = {"i16", 2},     [GGUF_U32] = {"u32", 4},   [GGUF_I32] = {"i32", 4},
    [GGUF_F32] = {"f32", 4},     [GGUF_BOOL] = {"bool", 1}, [GGUF_STRING] = {"string", 0},
    [GGUF_ARRAY] = {"array", 0}, [GGUF_U64] = {"u64", 8},   [GGUF_I64] = {"i64", 8},
    [GGUF_F64] = {"f64", 8},
};

const char *gguf_type_name(uint32_t type)
{
    if (type >= sizeof(tensor_types) / sizeof(tensor_types[0]))
        return NULL;
    return tensor_types[type].name;
}

bool gguf_type_block(uint32_t type, uint32_t *values, uint32_t *bytes)
{
    if (!gguf_type_name(type))
        return false;
    *values = tensor_types[type].values;
    *bytes = tensor_types[type].bytes;
    return true;
}

const char *gguf_value_type_name(enum gguf_value_type type)
{
    return (unsigned)type < GGUF_VALUE_TYPES ? value_types[type].name : "unknown";
}

uint32_t gguf_value_bytes(enum gguf_value_type type)
{
    return (unsigned)type < GGUF_VALUE_TYPES ? value_types[type].bytes : 0;
}

void gguf_error_set(struct gguf_error *err, const char *format, ...)
{
    va_list args;

    if (!err)
        return;
    va_start(args, format);
    (void)vsnprintf(err->text, sizeof(err->text), format, args);
    va_end(args);
    /* Names come from the file: keep the line printable on any terminal. */
    for (char *c = err->text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
}
