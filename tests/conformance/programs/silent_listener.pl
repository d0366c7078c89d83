# A listener that answers nobody: its queue is full, so that the kernel drops what else comes. Prints its port; ends with its input.
use strict;
use warnings;
use Socket;

$| = 1;
socket(my $listener, PF_INET, SOCK_STREAM, 0) or die "socket: $!";
bind($listener, sockaddr_in(0, inet_aton("127.0.0.1"))) or die "bind: $!";
listen($listener, 0) or die "listen: $!";
my $address = getsockname($listener);
my @waiting;
for (1 .. 4) {
  socket(my $client, PF_INET, SOCK_STREAM, 0) or die "socket: $!";
  use Fcntl;
  fcntl($client, F_SETFL, O_NONBLOCK);
  connect($client, $address);
  push @waiting, $client;
}
print +(sockaddr_in($address))[0], "\n";
while (<STDIN>) { }
