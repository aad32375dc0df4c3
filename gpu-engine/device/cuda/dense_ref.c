/* dense_ref.c - plain C for the kernels around the dense products: norm, SwiGLU, embedding, GEMV. */
#include <math.h>

#include "gpu-engine/device/cuda/element.h"
#include "gpu-engine/device/cuda/embedding.h"
#include "gpu-engine/device/cuda/gemv.h"
#include "gpu-engine/device/cuda/rms_norm.h"
#include "gpu-engine/device/cuda/swiglu.h"

static uint32_t rows_live(const struct cuda_rows *rows)
{
    return rows->n_live != NULL && *rows->n_live < rows->n ? *rows->n_live : rows->n;
}

void rms_norm_ref(const struct rms_norm *a)
{
    for (uint32_t r = 0; r < rows_live(&a->rows); r++) {
        float *x = a->residual + (size_t)a->slots[r] * a->width;
        double squares = 0;

        for (uint32_t e = 0; e < a->width; e++) {
            if (a->delta != NULL)
                x[e] += element_to_float(a->type, a->delta[(size_t)r * a->width + e]);
            squares += (double)x[e] * (double)x[e];
        }
        double factor = 1.0 / sqrt(squares / a->width + (double)a->epsilon);
        for (uint32_t e = 0; e < a->width; e++)
            a->out[(size_t)r * a->width + e] =
                element_from_float(a->type, (float)((double)x[e] * factor * (double)a->weight[e]));
    }
}

void swiglu_ref(const struct swiglu *a)
{
    for (uint32_t r = 0; r < rows_live(&a->rows); r++) {
        const uint16_t *gate = a->gate_up + (size_t)r * 2 * a->width, *up = gate + a->width;

        for (uint32_t e = 0; e < a->width; e++) {
            double g = (double)element_to_float(a->type, gate[e]);
            double y = g / (1.0 + exp(-g)) * (double)element_to_float(a->type, up[e]);
            a->out[(size_t)r * a->width + e] = element_from_float(a->type, (float)y);
        }
    }
}

void embedding_ref(const struct embedding *a)
{
    for (uint32_t r = 0; r < rows_live(&a->rows); r++) {
        uint32_t token = a->tokens[r];

        if ((token & CUDA_TOKEN_PREVIOUS) != 0)
            token = a->previous[token & ~CUDA_TOKEN_PREVIOUS];
        if (token >= a->n_vocab)
            token = 0;
        for (uint32_t e = 0; e < a->width; e++)
            a->residual[(size_t)a->slots[r] * a->width + e] =
                element_to_float(a->type, a->table[(size_t)token * a->width + e]);
    }
}

static double dot(const struct gemv *a, uint32_t row, uint32_t out)
{
    double sum = 0;

    for (uint32_t k = 0; k < a->n_in; k++)
        sum += (double)element_to_float(a->type, a->x[(size_t)row * a->n_in + k]) *
               (double)element_to_float(a->type, a->w[(size_t)out * a->n_in + k]);
    return sum;
}

static double gemv_output(const struct gemv *a, uint32_t row, uint32_t out)
{
    return dot(a, row, out) + (a->bias != NULL ? (double)a->bias[out] : 0.0);
}

void gemv_ref(const struct gemv *a)
{
    uint32_t n_out = a->swiglu ? a->n_out / 2 : a->n_out;

    for (uint32_t r = 0; r < a->n_rows; r++) {
        for (uint32_t o = 0; o < n_out; o++) {
            double y = gemv_output(a, r, o);

            if (a->swiglu)
                y = y / (1.0 + exp(-y)) * gemv_output(a, r, o + n_out);
            if (a->out != NULL)
                a->out[(size_t)r * n_out + o] = element_from_float(a->type, (float)y);
            if (a->out_f32 != NULL)
                a->out_f32[(size_t)r * n_out + o] = (float)y;
        }
    }
}
