/*
 * Closed-loop echo load of datagrams:
 *
 *     datagram_load PORT|PATH BYTES WINDOW SECONDS
 *
 * to a UDP port of 127.0.0.1, or to a Unix socket whose path begins with a slash. One socket keeps WINDOW datagrams of BYTES on
 * their way: for each echo the next one is sent. One that doesn't come back counts as lost and is replaced, so that a loss costs
 * its time and doesn't end the run; an echo that comes later still is not counted.
 *
 * The kernel keeps few datagrams of a Unix socket that nobody has read (net.unix.max_dgram_qlen, often 10). What doesn't fit is
 * sent later, so fewer than WINDOW may be on their way.
 *
 * In C for the reason that load.c tells. Linux only.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "load.h"

#define LARGEST 65507
/* Far above what an echo takes, also from a server that the machine doesn't let run for a while. */
#define LOST_AFTER 0.2

/* What a datagram begins with; the rest is the pattern. */
struct head {
  uint64_t sequence;
  uint32_t slot;
};

/* A place in the window; sequence 0 means free. */
struct slot {
  uint64_t sequence;
  double since;
};

static int fd;
static char own_path[sizeof ((struct sockaddr_un *)0)->sun_path];
static char outgoing[LARGEST], incoming[LARGEST + 1];
static size_t bytes;
static struct slot *slots;
static uint32_t *free_slots, window, free_count;
static uint64_t sequence, echoes, lost;

static void remove_own_path(void) {
  if (own_path[0] != '\0') unlink(own_path);
}

static void open_udp(int port) {
  struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  fd = socket(AF_INET, SOCK_DGRAM, 0);
  if (fd < 0) die_errno("socket");
  if (connect(fd, (struct sockaddr *)&server, sizeof server) < 0) die_errno("connect");
}

/* Binds a path of its own beside the server's: without one there would be nobody to reply to. */
static void open_unix(const char *path) {
  struct sockaddr_un server = {.sun_family = AF_UNIX}, own = {.sun_family = AF_UNIX};
  int length = snprintf(own.sun_path, sizeof own.sun_path, "%s.%d", path, getpid());
  if (length >= (int)sizeof own.sun_path) die("the path is too long for a socket");
  strcpy(server.sun_path, path);
  fd = socket(AF_UNIX, SOCK_DGRAM, 0);
  if (fd < 0) die_errno("socket");
  if (bind(fd, (struct sockaddr *)&own, sizeof own) < 0) die_errno(own.sun_path);
  strcpy(own_path, own.sun_path);
  atexit(remove_own_path);
  if (connect(fd, (struct sockaddr *)&server, sizeof server) < 0) die_errno("connect");
}

/* Sends until the window is full or the kernel takes no more. */
static void fill_window(void) {
  while (free_count > 0) {
    struct head head = {.sequence = sequence + 1, .slot = free_slots[free_count - 1]};
    memcpy(outgoing, &head, sizeof head);
    double since = now();
    if (send(fd, outgoing, bytes, MSG_DONTWAIT) < 0) {
      if (errno == EAGAIN || errno == ENOBUFS) return;
      die_errno("send");
    }
    slots[head.slot] = (struct slot){.sequence = ++sequence, .since = since};
    free_count--;
  }
}

static void release(uint32_t slot) {
  slots[slot].sequence = 0;
  free_slots[free_count++] = slot;
}

/* Takes what is there. The bytes are compared, since a server that mixes datagrams would look fast. */
static void receive_echoes(void) {
  for (;;) {
    ssize_t n = recv(fd, incoming, sizeof incoming, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return;
    if (n < 0) die_errno("recv");
    struct head head;
    memcpy(&head, incoming, sizeof head);
    if ((size_t)n != bytes || head.slot >= window || memcmp(incoming + sizeof head, outgoing + sizeof head, bytes - sizeof head) != 0) {
      die("the echo is not what was sent");
    }
    /* It had been given up. */
    if (slots[head.slot].sequence != head.sequence) continue;
    double us = (now() - slots[head.slot].since) * 1e6;
    latencies[us < BUCKETS ? (int)us : BUCKETS - 1]++;
    echoes++;
    release(head.slot);
  }
}

static void give_up_lost(double time) {
  for (uint32_t i = 0; i < window; i++) {
    if (slots[i].sequence == 0 || time - slots[i].since < LOST_AFTER) continue;
    lost++;
    release(i);
  }
}

int main(int argc, char **argv) {
  if (argc != 5) {
    fprintf(stderr, "usage: datagram_load PORT|PATH BYTES WINDOW SECONDS\n");
    return 2;
  }
  bytes = number(argv[2], sizeof(struct head), LARGEST);
  window = free_count = number(argv[3], 1, 1 << 16);
  double seconds = number(argv[4], 0.001, 86400);
  if (argv[1][0] == '/') open_unix(argv[1]);
  else open_udp(number(argv[1], 1, 65535));

  slots = calloc(window, sizeof *slots);
  free_slots = calloc(window, sizeof *free_slots);
  if (slots == NULL || free_slots == NULL) die("out of memory");
  for (uint32_t i = 0; i < window; i++) free_slots[i] = i;
  for (size_t i = sizeof(struct head); i < bytes; i++) outgoing[i] = i % 251;

  double used = cpu(), start = now(), end = start, next_check = start + LOST_AFTER / 4;
  while ((end = now()) - start < (echoes == 0 ? PATIENCE : seconds)) {
    if (end >= next_check) {
      give_up_lost(end);
      next_check = end + LOST_AFTER / 4;
    }
    fill_window();
    /* Waiting for room as well would cost the server a wake-up for each datagram that it takes; an echo tells as much. */
    struct pollfd ready = {.fd = fd, .events = free_count == window ? POLLIN | POLLOUT : POLLIN};
    if (poll(&ready, 1, 10) < 0 && errno != EINTR) die_errno("poll");
    receive_echoes();
  }
  if (echoes == 0) die("nothing came back");
  report(echoes, echoes, end - start, cpu() - used);
  printf(", \"lost\": %llu}\n", (unsigned long long)lost);
  /* The last ones are waited for, or the server would reply to a socket that is gone, and pay for the errors in the next run. */
  while (free_count < window && now() - end < LOST_AFTER) {
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    if (poll(&ready, 1, 10) < 0 && errno != EINTR) die_errno("poll");
    receive_echoes();
  }
  return 0;
}
