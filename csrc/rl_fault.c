/* rl_fault.c - see rl_fault.h. The only file of the core with file-level state: it belongs to the
 * test that armed it, not to a session. */
#include "rl_fault.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    char name[64];
    unsigned n;
    int signal;
    atomic_uint passed;
    int repair_off;
} armed;

void rl_fault_arm(const char *name, unsigned n, int signal)
{
    armed.n = 0;
    atomic_store(&armed.passed, 0);
    if (name == NULL) return;
    snprintf(armed.name, sizeof armed.name, "%s", name);
    armed.signal = signal;
    armed.n = n;
}

void rl_fault_arm_from_environment(void)
{
    const char *spec = getenv("RL_KILL");
    const char *colon = spec ? strrchr(spec, ':') : NULL;
    if (colon == NULL || (size_t)(colon - spec) >= sizeof armed.name) return;
    char name[sizeof armed.name] = {0};
    memcpy(name, spec, (size_t)(colon - spec));
    rl_fault_arm(name, (unsigned)strtoul(colon + 1, NULL, 10), SIGKILL);
}

void rl_fault_pass(const char *name)
{
    if (armed.n == 0) return;
    if (armed.name[0] != '*' && strcmp(armed.name, name) != 0) return;
    if (atomic_fetch_add(&armed.passed, 1) + 1 != armed.n) return;
    kill(getpid(), armed.signal);
    pause(); /* the signal is on its way; execute nothing more */
}

unsigned rl_fault_passed(void)
{
    return atomic_load(&armed.passed);
}

void rl_fault_switch_repair(int on)
{
    armed.repair_off = !on;
}

int rl_fault_repairs(void)
{
    return !armed.repair_off;
}
