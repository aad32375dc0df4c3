/* weight_ref.c - plain C for the kernels that make weights: conversion and dummy fill. */
#include "common/base/invariant.h"
#include "common/model/weight_block.h"
#include "gpu-engine/device/cuda/element.h"
#include "gpu-engine/device/cuda/weight_convert.h"
#include "gpu-engine/device/cuda/weight_fill.h"

void weight_convert_ref(const struct weight_convert *a)
{
    const enum weight_type from = (enum weight_type)a->weight_type;
    const uint32_t n = weight_block_values(from), bytes = weight_block_bytes(from);
    float x[WEIGHT_SUPER_BLOCK];

    invariant(n <= WEIGHT_SUPER_BLOCK);
    for (uint64_t at = 0; at < a->n_values; at++) {
        if (at % n == 0)
            weight_dequant_block(from, a->in + at / n * bytes, x);
        a->out[at] = element_from_float(a->type, x[at % n]);
    }
}

void weight_fill_ref(const struct weight_fill *a)
{
    for (uint64_t i = 0; i < a->n_values; i++)
        a->out[i] = element_from_float(a->type, weight_fill_unit(a->seed, a->first + i) * a->span);
}
