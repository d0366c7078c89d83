# Listens on a port and passes the listener on as systemd does, to a program that it starts whenever it reads a line "start". Prints the
# port, then `started PID` and `ended PID STATUS`; what the programs print goes to the same place. Ends with its input, and them with it.
use strict;
use warnings;
use Fcntl;
use IO::Select;
use IO::Socket::INET;
use POSIX ();

$| = 1;
my $listener = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => 0, Listen => 511) or die $!;
print $listener->sockport, "\n";

# Woken by the end of a program through a pipe, so that nothing is missed between two looks.
pipe(my $ended, my $tell) or die $!;
$SIG{CHLD} = sub { syswrite $tell, "." };
my %running;
my $select = IO::Select->new(\*STDIN, $ended);
while (1) {
  for my $ready ($select->can_read) {
    if ($ready == $ended) {
      sysread $ended, my $dots, 64;
      while ((my $pid = waitpid(-1, POSIX::WNOHANG())) > 0) { delete $running{$pid}; print "ended $pid ", $? >> 8, $? & 127 ? " signal" : "", "\n" }
    } else {
      if (!sysread STDIN, my $line, 64) { kill KILL => keys %running; exit }
      my $pid = fork // die $!;
      $running{$pid} = 1;
      if ($pid == 0) {
        # One that is 3 already would else be closed by exec.
        if (fileno($listener) == 3) { fcntl($listener, F_SETFD, 0) } else { POSIX::dup2(fileno($listener), 3) }
        @ENV{qw(LISTEN_PID LISTEN_FDS)} = ($$, 1);
        syswrite STDOUT, "started $$\n";
        # It must not survive a test that was given up.
        exec "setpriv", "--pdeathsig", "KILL", @ARGV, "--listen", "tcp://127.0.0.1:0" or die $!;
      }
    }
  }
}
