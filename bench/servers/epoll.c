/*
 * Echo over TCP in one epoll loop: what the machine can do at all, and so a check of the load generator as well.
 *
 *     epoll echo|once
 *
 * With `once` a connection is closed after its first echo. Linux only.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static void die(const char *what) {
  perror(what);
  exit(1);
}

/* What a socket didn't take at once. */
struct conn {
  int fd;
  size_t from, to;
  char *unsent;
};

static char buffer[65536];
static int poller, once;

static void watch(struct conn *c, int op, uint32_t events) {
  struct epoll_event event = {.events = events, .data.ptr = c};
  if (epoll_ctl(poller, op, c->fd, &event) < 0) die("epoll_ctl");
}

static void end(struct conn *c) {
  close(c->fd);
  free(c->unsent);
  free(c);
}

static void accept_all(int listener) {
  int on = 1;
  for (;;) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0) return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct conn *c = calloc(1, sizeof *c);
    if (c == NULL) die("calloc");
    c->fd = fd;
    watch(c, EPOLL_CTL_ADD, EPOLLIN);
  }
}

/* Reads no more before all is sent, which bounds what is kept. */
static void echo(struct conn *c) {
  ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
  if (n < 0 && errno == EAGAIN) return;
  if (n <= 0) return end(c);
  ssize_t sent = send(c->fd, buffer, n, MSG_NOSIGNAL);
  if (sent < 0 && errno != EAGAIN) return end(c);
  if (sent < 0) sent = 0;
  if (sent == n) {
    if (once) end(c);
    return;
  }
  if (c->unsent == NULL) c->unsent = malloc(sizeof buffer);
  if (c->unsent == NULL) die("malloc");
  memcpy(c->unsent, buffer + sent, n - sent);
  c->from = 0;
  c->to = n - sent;
  watch(c, EPOLL_CTL_MOD, EPOLLOUT);
}

static void send_rest(struct conn *c) {
  ssize_t sent = send(c->fd, c->unsent + c->from, c->to - c->from, MSG_NOSIGNAL);
  if (sent < 0 && errno == EAGAIN) return;
  if (sent < 0) return end(c);
  c->from += sent;
  if (c->from < c->to) return;
  if (once) return end(c);
  watch(c, EPOLL_CTL_MOD, EPOLLIN);
}

int main(int argc, char **argv) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  once = argc == 2 && strcmp(argv[1], "once") == 0;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (listener < 0) die("socket");
  if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0) die("bind");
  if (listen(listener, 4096) < 0) die("listen");
  if (getsockname(listener, (struct sockaddr *)&address, &length) < 0) die("getsockname");
  poller = epoll_create1(0);
  if (poller < 0) die("epoll_create1");
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[1024];
  if (epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event) < 0) die("epoll_ctl");
  printf("listening tcp://127.0.0.1:%d\n", ntohs(address.sin_port));
  fflush(stdout);
  for (;;) {
    int ready = epoll_wait(poller, events, 1024, -1);
    if (ready < 0 && errno != EINTR) die("epoll_wait");
    for (int i = 0; i < ready; i++) {
      struct conn *c = events[i].data.ptr;
      if (c == NULL) accept_all(listener);
      else if (events[i].events & EPOLLOUT) send_rest(c);
      else echo(c);
    }
  }
}
