/* dense_pack.h - from weight views to panels; internal to common/compute.
 * The layout of a panel is drawn in kernels.h. */
#ifndef OMNI_COMMON_COMPUTE_DENSE_PACK_H
#define OMNI_COMMON_COMPUTE_DENSE_PACK_H

#include <stddef.h>
#include <stdint.h>

#include "common/model/weight.h"

/* Bytes of one panel of 32 outputs over k inputs. */
size_t dense_pack_panel_bytes(enum weight_type type, uint32_t k);

/* Copies outputs 32*panel..+31 of slice 0 of the view, types unchanged; outputs beyond the last
 * become zero weights. */
void dense_pack_panel(const struct weight_view *view, uint32_t panel, uint8_t *out);

#endif
