/*
 * A flood of connections from 127.0.0.2, which is an address of its own to the server on 127.0.0.1:
 *
 *     flood_load PORT CONNECTIONS SECONDS
 *
 * Each connection sends one byte, waits for the server to end it, answered or refused, and is made anew. Linux only, for epoll.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

struct conn {
  int fd;
  int answered;
};

static int poller;
static uint64_t answered, refused;

/* Makes it, unless the server is so quick that it has reset it by then. */
static int try_to_open(struct conn *c, int port) {
  struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1)};
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
  /* TIME_WAIT would use up the ports. */
  struct linger reset = {.l_onoff = 1, .l_linger = 0};
  c->answered = 0;
  c->fd = socket(AF_INET, SOCK_STREAM, 0);
  if (c->fd < 0) die_errno("socket");
  if (setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) < 0) die_errno("SO_LINGER");
  if (bind(c->fd, (struct sockaddr *)&from, sizeof from) < 0) die_errno("bind");
  if (connect(c->fd, (struct sockaddr *)&to, sizeof to) < 0) {
    if (errno != ECONNRESET) die_errno("connect");
    close(c->fd);
    return 0;
  }
  if (send(c->fd, "x", 1, MSG_NOSIGNAL) < 0 && errno != EPIPE && errno != ECONNRESET) die_errno("send");
  if (fcntl(c->fd, F_SETFL, O_NONBLOCK) < 0) die_errno("O_NONBLOCK");
  if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event) < 0) die_errno("epoll_ctl");
  return 1;
}

static void open_conn(struct conn *c, int port) {
  while (!try_to_open(c, port)) refused++;
}

int main(int argc, char **argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: flood_load PORT CONNECTIONS SECONDS\n");
    return 2;
  }
  int port = number(argv[1], 1, 65535);
  int connections = number(argv[2], 1, 20000);
  double seconds = number(argv[3], 0.001, 86400);
  struct conn *conns = calloc(connections, sizeof *conns);
  if (conns == NULL) die("out of memory");
  poller = epoll_create1(0);
  if (poller < 0) die_errno("epoll_create1");
  for (int i = 0; i < connections; i++) open_conn(&conns[i], port);

  struct epoll_event events[1024];
  double start = now();
  while (now() - start < seconds) {
    int ready = epoll_wait(poller, events, 1024, 10);
    if (ready < 0 && errno != EINTR) die_errno("epoll_wait");
    for (int i = 0; i < ready; i++) {
      struct conn *c = events[i].data.ptr;
      char buffer[64];
      ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
      if (n > 0) c->answered = 1;
      if (n > 0 || (n < 0 && errno == EAGAIN)) continue;
      if (n < 0 && errno != ECONNRESET) die_errno("recv");
      if (c->answered) answered++;
      else refused++;
      close(c->fd);
      open_conn(c, port);
    }
  }
  printf("{\"answered\": %llu, \"refused\": %llu}\n", (unsigned long long)answered, (unsigned long long)refused);
  return 0;
}
