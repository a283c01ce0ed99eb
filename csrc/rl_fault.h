/* rl_fault.h - kill points: places where a test makes this process die.
 *
 * RL_KILL_POINT("module.op.step") stands on both sides of every commit store. It is empty unless
 * the core is built with -DRL_FAULTS. In such a build rl_fault_arm() chooses a point, how often it
 * is to be passed first, and the signal. The environment variable RL_KILL="name:n" arms a point in
 * a process that a test cannot reach otherwise (n = 1 is the first time).
 */
#ifndef RL_FAULT_H
#define RL_FAULT_H

#ifdef RL_FAULTS
#define RL_KILL_POINT(name) rl_fault_pass(name)
#define RL_REPAIRS() rl_fault_repairs()
#else
#define RL_KILL_POINT(name) ((void)0)
#define RL_REPAIRS() 1
#endif

/* Die by `signal` when point `name` is passed for the n-th time from now on; NULL disarms.
 * The name "*" means any point. */
void rl_fault_arm(const char *name, unsigned n, int signal);

/* Arm from the environment variable RL_KILL, if it is set and well formed. */
void rl_fault_arm_from_environment(void);

/* Count one passage of point `name`; die if it is the armed one's n-th. */
void rl_fault_pass(const char *name);

/* How many kill points this process has passed since rl_fault_arm(). */
unsigned rl_fault_passed(void);

/* Switch repair off: the negative control of every kill test. Inherited by forked children. */
void rl_fault_switch_repair(int on);
int rl_fault_repairs(void);

#endif
