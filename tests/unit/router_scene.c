#include "router_scene.h"
#include "cmocka_all.h"

const char scene_script[] =
    "The quick brown fox jumps over the lazy dog, caf\xc3\xa9 by caf\xc3\xa9. ";

struct router_thread router;
struct fake_engine engine;

int scene_set_up(void **state)
{
    (void)state;
    router_thread_init(&router);
    fake_engine_init(&engine, scene_script);
    return 0;
}

int scene_tear_down(void **state)
{
    (void)state;
    router_thread_fini(&router);
    return 0;
}

int scene_clean(void **state)
{
    (void)state;
    fixture_remove_model();
    return 0;
}

void scene_start(void)
{
    router_thread_start(&router);
    fake_engine_start(&engine, router.dir, router.router.text.model_hash);
}

void scene_expect_script(const struct output *o, uint32_t from, uint32_t n)
{
    assert_int_equal(o->n, n);
    assert_int_equal(o->first, from);
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(o->ids[i], engine.script[(from + i) % engine.n_script]);
}
