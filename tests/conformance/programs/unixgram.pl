# A Unix datagram socket on a leash: commands come on stdin, what happens goes to stdout. Names and data are in hexadecimal.
#
#     perl unixgram.pl [NAME]      without a name, the socket has none
#
#     send NAME DATA               answers "sent" or "failed N" with the errno
#     burst NAME COUNT             sends that many numbered datagrams, waiting while the receiver is full; answers "sent"
#     quiet                        stops receiving
#
# Every datagram received is shown as "from NAME DATA".
use strict;
use warnings;
use Socket;

$| = 1;
socket(my $socket, AF_UNIX, SOCK_DGRAM, 0) or die "socket: $!";
if (@ARGV) { bind($socket, pack_sockaddr_un(pack "H*", $ARGV[0])) or die "bind: $!" }
print "ready\n";

my ($input, $listening) = ("", 1);
while (1) {
  my $wanted = "";
  vec($wanted, fileno(STDIN), 1) = 1;
  vec($wanted, fileno($socket), 1) = 1 if $listening;
  select($wanted, undef, undef, undef) or next;
  if ($listening && vec($wanted, fileno($socket), 1)) {
    my $from = recv($socket, my $data, 65536, 0);
    my $name = length($from // "") > 2 ? (unpack_sockaddr_un($from))[0] : "";
    print "from ", unpack("H*", $name), " ", unpack("H*", $data), "\n";
  }
  if (vec($wanted, fileno(STDIN), 1)) {
    sysread(STDIN, $input, 1 << 20, length $input) or last;
    while ($input =~ s/^([^\n]*)\n//) {
      my ($command, $name, $data) = split / /, $1;
      if ($command eq "quiet") { $listening = 0; next }
      my $to = pack_sockaddr_un(pack "H*", $name);
      if ($command eq "burst") {
        for my $i (0 .. $data - 1) { send($socket, pack("N", $i), 0, $to) // die "send: $!" }
        print "sent\n";
      } elsif (defined send($socket, pack("H*", $data // ""), 0, $to)) {
        print "sent\n";
      } else {
        print "failed ", $! + 0, "\n";
      }
    }
  }
}
