#include "tests/gpu/checks/checks.h"

const struct check CHECKS[] = {
    {"decode_attention", check_decode_attention},
    {"prefill_attention", check_prefill_attention},
    {"rms_norm", check_rms_norm},
    {"rotary_write", check_rotary_write},
    {"pick_step", check_pick_step},
    {"gather", check_gather},
    {"sweep_begin", check_sweep_begin},
    {"sweep_outputs", check_sweep_outputs},
    {"swiglu", check_swiglu},
    {"embedding", check_embedding},
    {"gemv", check_gemv},
    {"sampling", check_sampling},
    {"sampling_wide", check_sampling_wide},
    {"weight_convert", check_weight_convert},
    {"weight_fill", check_weight_fill},
};
const size_t N_CHECKS = sizeof CHECKS / sizeof CHECKS[0];
