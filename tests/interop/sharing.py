"""Restarts a server that shares its port (SO_REUSEPORT) ten times while clients connect, one connection after the other, and each needs
its answer: `sharing.py COMMAND...`, to which the port is added. The new one listens before the old one is told to end. Prints how many
connections were answered.

It needs a network of its own (`unshare --net`), where it has the kernel pass on what the old one leaves (net.ipv4.tcp_migrate_req).
"""
import fcntl
import signal
import socket
import struct
import subprocess
import sys
import threading

PORT = 4242
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    name, flags = struct.unpack("16sh", fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("16sh", b"lo", 0)))
    fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", name, flags | IFF_UP))
with open("/proc/sys/net/ipv4/tcp_migrate_req", "w") as setting:
    setting.write("1")


def start():
    # It must not survive a test that was given up.
    server = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *sys.argv[1:], str(PORT)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    line = server.stdout.readline()
    if line != f"listening tcp://127.0.0.1:{PORT}\n":
        sys.exit(f"the server's first line is {line!r}")
    return server


answered = 0
stopped = False
failed = None
progress = threading.Condition()


def load():
    global answered, failed
    try:
        while not stopped:
            with socket.create_connection(("127.0.0.1", PORT), 30) as client:
                client.sendall(b"ping")
                client.shutdown(socket.SHUT_WR)
                answer = b""
                while chunk := client.recv(5):
                    answer += chunk
                if answer != b"ping":
                    raise EOFError(f"the answer is {answer!r}")
            with progress:
                answered += 1
                progress.notify_all()
    except Exception as error:
        with progress:
            failed = error
            progress.notify_all()


running = start()
clients = [threading.Thread(target=load) for _ in range(4)]
for client in clients:
    client.start()
for restart in range(10):
    following = start()
    running.send_signal(signal.SIGTERM)
    if (status := running.wait()) != 0:
        sys.exit(f"the server ended with {status}")
    running = following
    with progress:
        # The new one has been at work alone.
        enough = answered + 50
        progress.wait_for(lambda: failed is not None or answered >= enough)
    if failed is not None:
        break
stopped = True
for client in clients:
    client.join()
running.terminate()
running.wait()
if failed is not None:
    sys.exit(f"after {answered} connections: {failed!r}")
print(answered)
