/*
 * Connections that are there and say nothing:
 *
 *     idle_load PORT CONNECTIONS
 *
 * Each is made and sends one line, which the server echoes, so that the server has what it needs for it. Then the number of those that
 * could be made is printed, and they stay open until standard input ends. Linux only.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

int main(int argc, char **argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: idle_load PORT CONNECTIONS\n");
    return 2;
  }
  struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_port = htons(number(argv[1], 1, 65535)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  /* The ephemeral ports of one address are about 28,000. */
  int connections = number(argv[2], 1, 25000), made = 0;
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0) die_errno("getrlimit");
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  char line[64], echo[64];
  memset(line, 'x', sizeof line);
  line[sizeof line - 1] = '\n';
  for (; made < connections; made++) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 && errno == EMFILE) break;
    if (fd < 0) die_errno("socket");
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) die_errno("connect");
    if (send(fd, line, sizeof line, MSG_NOSIGNAL) != sizeof line) die_errno("send");
    if (recv(fd, echo, sizeof echo, MSG_WAITALL) != sizeof echo || memcmp(line, echo, sizeof line) != 0) die("no echo came back");
  }
  printf("{\"connections\": %d}\n", made);
  fflush(stdout);
  while (read(0, line, sizeof line) > 0);
  return 0;
}
