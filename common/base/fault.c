#include "common/base/fault.h"

#ifdef OMNI_FAULTS

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FAULTS_MAX = 8, EXIT_STATUS = 70 };

struct fault {
    char label[64];
    char action[8];
    unsigned long at;
    unsigned long passes;
};

_Atomic int fault_armed;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct fault faults[FAULTS_MAX]; /* under lock */
static unsigned n_faults;
static void (*_Atomic test_hook)(const char *label);

/* label[:n][:action], n and action in any order. */
static bool parse_one(struct fault *f, char *text)
{
    char *save = NULL;
    char *part = strtok_r(text, ":", &save);

    if (part == NULL)
        return false;
    *f = (struct fault){.at = 1, .action = "kill"};
    snprintf(f->label, sizeof f->label, "%s", part);
    while ((part = strtok_r(NULL, ":", &save)) != NULL) {
        char *end;
        unsigned long n = strtoul(part, &end, 10);
        if (*end == '\0' && n > 0)
            f->at = n;
        else
            snprintf(f->action, sizeof f->action, "%s", part);
    }
    return true;
}

static void arm(void)
{
    bool look = n_faults > 0 || atomic_load_explicit(&test_hook, memory_order_relaxed) != NULL;

    atomic_store_explicit(&fault_armed, look ? 2 : 1, memory_order_relaxed);
}

static void parse(const char *spec)
{
    char copy[512];
    char *save = NULL;

    n_faults = 0;
    snprintf(copy, sizeof copy, "%s", spec == NULL ? "" : spec);
    for (char *one = strtok_r(copy, ",", &save); one != NULL && n_faults < FAULTS_MAX;
         one = strtok_r(NULL, ",", &save))
        n_faults += parse_one(&faults[n_faults], one);
    arm();
}

void fault_set(const char *spec)
{
    pthread_mutex_lock(&lock);
    parse(spec);
    pthread_mutex_unlock(&lock);
}

void fault_set_hook(void (*hook)(const char *label))
{
    pthread_mutex_lock(&lock);
    atomic_store_explicit(&test_hook, hook, memory_order_release);
    arm();
    pthread_mutex_unlock(&lock);
}

static void act(const struct fault *f)
{
    if (strcmp(f->action, "stop") == 0)
        kill(getpid(), SIGSTOP);
    else if (strcmp(f->action, "exit") == 0)
        _exit(EXIT_STATUS);
    else
        kill(getpid(), SIGKILL);
}

void fault_pass(const char *label)
{
    struct fault hit = {.at = 0};
    void (*hook)(const char *) = atomic_load_explicit(&test_hook, memory_order_acquire);

    if (hook != NULL)
        hook(label);
    pthread_mutex_lock(&lock);
    if (atomic_load_explicit(&fault_armed, memory_order_relaxed) == 0)
        parse(getenv("OMNI_FAULT"));
    for (unsigned i = 0; i < n_faults; i++) {
        if (strcmp(faults[i].label, label) == 0 && ++faults[i].passes == faults[i].at)
            hit = faults[i];
    }
    pthread_mutex_unlock(&lock);
    if (hit.at != 0)
        act(&hit);
}

#else
typedef int fault_is_compiled_out; /* ISO C forbids an empty file */
#endif
