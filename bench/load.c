/*
 * Closed-loop echo load on 127.0.0.1:
 *
 *     load PORT CONNECTIONS BYTES DEPTH SECONDS [anew [COUNT]]
 *
 * Every connection sends DEPTH messages of BYTES at once, waits until all of them have come back, and sends the next. A closed
 * loop has no rate to choose: it shows what a server can do at a given concurrency, and its latency is that of a busy server.
 * Latencies are those of a whole burst, which is one message at depth 1. With `anew`, a connection carries one burst: the server closes
 * it when it has echoed that, and the next one is made in its place, which is part of the latency; COUNT ends it after so many.
 *
 * A message is a line of text, so that a server that reads lines can be measured with it too.
 *
 * In C so that on its own core it is faster than any of the servers: otherwise it would measure itself. Linux only, for epoll.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

struct conn {
  int fd;
  int wants_out;
  size_t sent;
  size_t received;
  double since;
};

static int poller;
static char *pattern;
static size_t burst;
static int anew;
static uint64_t received;

static void watch(struct conn *c, int op, int wants_out) {
  struct epoll_event event = {.events = EPOLLIN | (wants_out ? EPOLLOUT : 0), .data.ptr = c};
  if (epoll_ctl(poller, op, c->fd, &event) < 0) die_errno("epoll_ctl");
  c->wants_out = wants_out;
}

static void open_conn(struct conn *c, int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int on = 1;
  /* Closing resets the connection: runs follow each other closely, and TIME_WAIT would use up the ports. */
  struct linger reset = {.l_onoff = 1, .l_linger = 0};
  c->fd = socket(AF_INET, SOCK_STREAM, 0);
  if (c->fd < 0) die_errno("socket");
  if (connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0) die_errno("connect");
  if (setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0) die_errno("TCP_NODELAY");
  if (!anew && setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) < 0) die_errno("SO_LINGER");
  if (fcntl(c->fd, F_SETFL, O_NONBLOCK) < 0) die_errno("O_NONBLOCK");
  watch(c, EPOLL_CTL_ADD, 0);
}

/* Sends what the kernel takes; a big burst goes on when there is room, and meanwhile the echo is read, or both would stall. */
static void send_rest(struct conn *c) {
  ssize_t n = send(c->fd, pattern + c->sent, burst - c->sent, MSG_NOSIGNAL);
  if (n < 0 && errno != EAGAIN) die_errno("send");
  if (n > 0) c->sent += n;
  int wants_out = c->sent < burst;
  if (wants_out != c->wants_out) watch(c, EPOLL_CTL_MOD, wants_out);
}

static void send_burst(struct conn *c) {
  c->sent = c->received = 0;
  send_rest(c);
}

/* Returns whether the burst is back, and with `anew` the end of the connection after it. The bytes are compared, since a server that drops or mixes them would look fast. */
static int receive(struct conn *c) {
  static char buffer[1 << 18];
  ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
  if (n < 0 && errno == EAGAIN) return 0;
  if (n < 0) die_errno("recv");
  if (n == 0 && anew && c->received == burst) return 1;
  if (n == 0) die("the server closed a connection");
  if (c->received + n > c->sent || memcmp(buffer, pattern + c->received, n) != 0) die("the echo is not what was sent");
  c->received += n;
  received += n;
  return !anew && c->received == burst;
}

int main(int argc, char **argv) {
  anew = argc >= 7 && strcmp(argv[6], "anew") == 0;
  if (argc != 6 && !(anew && argc <= 8)) {
    fprintf(stderr, "usage: load PORT CONNECTIONS BYTES DEPTH SECONDS [anew [COUNT]]\n");
    return 2;
  }
  int port = number(argv[1], 1, 65535);
  int connections = number(argv[2], 1, 60000);
  size_t bytes = number(argv[3], 1, 1 << 24);
  size_t depth = number(argv[4], 1, 1 << 10);
  double seconds = number(argv[5], 0.001, 86400);
  uint64_t most = argc == 8 ? number(argv[7], 1, 1e12) : UINT64_MAX;

  burst = bytes * depth;
  pattern = malloc(burst);
  struct conn *conns = calloc(connections, sizeof *conns);
  if (pattern == NULL || conns == NULL) die("out of memory");
  /* 23 is a prime: shifted by any power of two the pattern doesn't match itself. */
  for (size_t i = 0; i < burst; i++) pattern[i] = i % bytes == bytes - 1 ? '\n' : 'a' + i % 23;

  poller = epoll_create1(0);
  if (poller < 0) die_errno("epoll_create1");
  for (int i = 0; i < connections; i++) open_conn(&conns[i], port);

  uint64_t bursts = 0;
  struct epoll_event events[1024];
  double start = now(), end = start, used = cpu();
  for (int i = 0; i < connections; i++) {
    conns[i].since = now();
    send_burst(&conns[i]);
  }
  while ((end = now()) - start < (received == 0 ? PATIENCE : seconds) && bursts < most) {
    int ready = epoll_wait(poller, events, 1024, 10);
    if (ready < 0 && errno != EINTR) die_errno("epoll_wait");
    for (int i = 0; i < ready; i++) {
      struct conn *c = events[i].data.ptr;
      if (events[i].events & EPOLLOUT) send_rest(c);
      if (!(events[i].events & ~EPOLLOUT) || !receive(c)) continue;
      double us = (now() - c->since) * 1e6;
      latencies[us < BUCKETS ? (int)us : BUCKETS - 1]++;
      bursts++;
      c->since = now();
      if (anew) {
        close(c->fd);
        open_conn(c, port);
      }
      send_burst(c);
    }
  }
  if (received == 0) die("nothing came back");
  /* Of bursts that take a while, most are unfinished at the end. */
  report(received / bytes, bursts, end - start, cpu() - used);
  printf("}\n");
  return 0;
}
