/*
 * Bulk load in one direction, from or to a server on 127.0.0.1:
 *
 *     bulk_load PORT CONNECTIONS SECONDS send|receive
 *
 * A message is 64 KiB, so that the figures can be read as those of the other loads. What is sent counts when the kernel takes it: that
 * is ahead of the server by what the sockets' buffers hold, which is nothing beside what a second moves.
 *
 * In C for the reason that load.c tells. Linux only.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

#define MESSAGE 65536

static char buffer[4 * MESSAGE];

int main(int argc, char **argv) {
  int receives = argc == 5 && strcmp(argv[4], "receive") == 0;
  if (argc != 5 || (!receives && strcmp(argv[4], "send") != 0)) {
    fprintf(stderr, "usage: bulk_load PORT CONNECTIONS SECONDS send|receive\n");
    return 2;
  }
  struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_port = htons(number(argv[1], 1, 65535)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int connections = number(argv[2], 1, 60000);
  double seconds = number(argv[3], 0.001, 86400);
  int poller = epoll_create1(0);
  if (poller < 0) die_errno("epoll_create1");
  for (int i = 0; i < connections; i++) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0) die_errno("socket");
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) die_errno("connect");
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0) die_errno("O_NONBLOCK");
    struct epoll_event event = {.events = receives ? EPOLLIN : EPOLLOUT, .data.fd = fd};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0) die_errno("epoll_ctl");
  }

  uint64_t bytes = 0;
  struct epoll_event events[256];
  double start = now(), end = start, used = cpu();
  while ((end = now()) - start < (bytes == 0 ? PATIENCE : seconds)) {
    int ready = epoll_wait(poller, events, 256, 10);
    if (ready < 0 && errno != EINTR) die_errno("epoll_wait");
    for (int i = 0; i < ready; i++) {
      int fd = events[i].data.fd;
      ssize_t n = receives ? recv(fd, buffer, sizeof buffer, 0) : send(fd, buffer, MESSAGE, MSG_NOSIGNAL);
      if (n == 0) die("the server closed a connection");
      if (n < 0 && errno != EAGAIN) die_errno(receives ? "recv" : "send");
      if (n > 0) bytes += n;
    }
  }
  if (bytes == 0) die("nothing was moved");
  double messages = (double)bytes / MESSAGE;
  printf("{\"messages\": %.1f, \"messagesPerSecond\": %.1f, \"loadShare\": %.3f}\n", messages, messages / (end - start),
         (cpu() - used) / (end - start));
  return 0;
}
