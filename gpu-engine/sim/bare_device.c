#include "gpu-engine/sim/bare_device.h"

#include <errno.h>
#include <string.h>

#include "common/topology/topology.h"
#include "gpu-engine/setup.h"

static void nobody(void *arg)
{
    (void)arg;
}

/* The place that engine 0 of the group would get. */
static int find_place(struct topology_place *place, const struct omni_config *c, struct error *err)
{
    static struct topology topology; /* large; used while the plan is made */
    struct topology_plan plan;
    struct topology_request request = topology_request_of(c);
    int rc = topology_load(&topology, NULL, err);

    if (rc == 0)
        rc = topology_plan(&topology, &request, &plan, err);
    if (rc == 0)
        *place = plan.engine[0];
    return rc;
}

static int open_device(struct bare_device *b, const struct omni_config *c, struct error *err)
{
    struct setup_sizes sizes;
    struct topology_place place;
    int cpus[TOPOLOGY_CPUS_MAX];
    int rc = find_place(&place, c, err);

    b->subject.ops = setup_device(c, err);
    if (rc != 0 || b->subject.ops == NULL)
        return rc != 0 ? rc : -ENOTSUP;
    setup_sizes(&sizes, c, b->model, &b->geometry);
    for (uint32_t i = 0; i < place.n_threads && i < TOPOLOGY_CPUS_MAX; i++)
        cpus[i] = cpu_set_nth(&place.cpus, i % cpu_set_count(&place.cpus));
    const struct device_config config = {.model = b->model,
                                         .geometry = &b->geometry,
                                         .n_kv_blocks = sizes.device_blocks,
                                         .rows_max = sizes.rows_max,
                                         .returned_rows_max = sizes.returned_max,
                                         .seqs_max = sizes.seqs_max,
                                         .context_max = sizes.context_max,
                                         .n_threads = place.n_threads,
                                         .cpus = place.pinned ? cpus : NULL,
                                         .spin_us = place.exclusive ? c->worker_spin_us : 0,
                                         .copies_max = 1,
                                         .notify = nobody};
    b->subject.model = b->model;
    b->subject.geometry = &b->geometry;
    b->subject.rows_max = sizes.rows_max;
    b->subject.seqs_max = sizes.seqs_max;
    b->subject.context_max = sizes.context_max;
    rc = b->subject.ops->open(&b->subject.device, &config);
    return rc == 0 ? 0 : error_set(err, rc, "device %s: %s", b->subject.ops->name, strerror(-rc));
}

int bare_device_open(struct bare_device *b, const struct omni_config *config, struct error *err)
{
    struct gguf_error gguf_err;
    int rc;

    memset(b, 0, sizeof *b);
    rc = model_open(config->model_path, &b->model, &gguf_err);
    if (rc != 0)
        return error_set(err, rc, "model.path %s: %s", config->model_path, gguf_err.text);
    rc = setup_geometry(&b->geometry, config, b->model, err);
    return rc == 0 ? open_device(b, config, err) : rc;
}

void bare_device_close(struct bare_device *b)
{
    if (b->subject.device != NULL)
        b->subject.ops->close(b->subject.device);
    model_close(b->model);
    memset(b, 0, sizeof *b);
}
