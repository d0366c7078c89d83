/* What the load generators have in common: errors, the clock, arguments, latencies. Linux only, for the program's name. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

/* One bucket a microsecond: unlike a list of samples it never fills up and needs no sorting. The last takes what is slower. */
#define BUCKETS 8000000

/* How long a load waits for a first answer when its time is over: a busy machine may not have let the server run yet. */
#define PATIENCE 60

static uint32_t latencies[BUCKETS];

static void die(const char *what) {
  fprintf(stderr, "%s: %s\n", program_invocation_short_name, what);
  exit(1);
}

static void die_errno(const char *what) {
  fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
  exit(1);
}

static inline double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

/* A whole argument as a number, so that a typo is told rather than measured. */
static inline double number(const char *text, double min, double max) {
  char *end;
  double value = strtod(text, &end);
  if (end == text || *end != '\0' || !(value >= min && value <= max)) {
    fprintf(stderr, "%s: bad argument %s\n", program_invocation_short_name, text);
    exit(2);
  }
  return value;
}

/* The processor time used so far, in seconds. */
static inline double cpu(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* In microseconds; -1 when nothing was timed. */
static inline int percentile(uint64_t count, double share) {
  if (count == 0) return -1;
  uint64_t below = 0;
  for (int i = 0; i < BUCKETS; i++) {
    below += latencies[i];
    if (below > count * share) return i;
  }
  return BUCKETS - 1;
}

/* Prints the figures that all have in common; `used` is the processor time, so that it is seen how far the generator was from its limit. */
static inline void report(uint64_t messages, uint64_t timed, double seconds, double used) {
  printf("{\"messages\": %llu, \"messagesPerSecond\": %.1f, \"p50\": %d, \"p99\": %d, \"p999\": %d, \"loadShare\": %.3f",
         (unsigned long long)messages, messages / seconds, percentile(timed, 0.5), percentile(timed, 0.99),
         percentile(timed, 0.999), used / seconds);
}
