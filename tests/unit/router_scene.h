/* router_scene.h - what the tests of a whole router begin and end with: a router in a thread, the
 * scripted engine that it sees, and what its clients must then get.  One of each per program. */
#ifndef OMNI_TESTS_UNIT_ROUTER_SCENE_H
#define OMNI_TESTS_UNIT_ROUTER_SCENE_H

#include "fake_engine.h"
#include "router_fixture.h"
#include "router_output.h"

extern struct router_thread router;
extern struct fake_engine engine;
extern const char scene_script[]; /* what the engine says, over and over */

/* cmocka's functions around a test: fresh ones, not yet started; and the end of both. */
int scene_set_up(void **state);
int scene_tear_down(void **state);
#define SCENE_TEST(name) cmocka_unit_test_setup_teardown(name, scene_set_up, scene_tear_down)
/* After the last test of the program. */
int scene_clean(void **state);

void scene_start(void);

/* The script's text from token `from` on, n tokens, is what the output says; the tokens too. */
void scene_expect_script(const struct output *o, uint32_t from, uint32_t n);

#endif
