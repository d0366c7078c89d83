/* What the load generators have in common: errors, the clock, arguments, latencies. Linux only, for the program's name. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* One bucket a microsecond: unlike a list of samples it never fills up and needs no sorting. The last takes what is slower. */
#define BUCKETS 1000000

static uint32_t latencies[BUCKETS];

static void die(const char *what) {
  fprintf(stderr, "%s: %s\n", program_invocation_short_name, what);
  exit(1);
}

static void die_errno(const char *what) {
  fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
  exit(1);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

/* A whole argument as a number, so that a typo is told rather than measured. */
static double number(const char *text, double min, double max) {
  char *end;
  double value = strtod(text, &end);
  if (end == text || *end != '\0' || !(value >= min && value <= max)) {
    fprintf(stderr, "%s: bad argument %s\n", program_invocation_short_name, text);
    exit(2);
  }
  return value;
}

static int percentile(uint64_t count, double share) {
  uint64_t below = 0;
  for (int i = 0; i < BUCKETS; i++) {
    below += latencies[i];
    if (below > count * share) return i;
  }
  return BUCKETS - 1;
}
