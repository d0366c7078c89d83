"""Echo over TCP in Python: `python_stream.py threading|forking|asyncio echo|once`, the first two on its socketserver."""
import asyncio
import resource
import socket
import socketserver
import sys

mode, handler = sys.argv[1:]
once = handler == "once"
# As the runtimes do by themselves.
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def listening(server_socket):
    print("listening", "tcp://127.0.0.1:%d" % server_socket.getsockname()[1], flush=True)


class Echo(socketserver.BaseRequestHandler):
    def setup(self):
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def handle(self):
        try:
            while data := self.request.recv(65536):
                self.request.sendall(data)
                if once:
                    return
        except ConnectionError:
            # The load generator resets its connections.
            pass


class ThreadingServer(socketserver.ThreadingTCPServer):
    request_queue_size = 4096
    daemon_threads = True


class ForkingServer(socketserver.ForkingTCPServer):
    request_queue_size = 4096
    max_children = 2000


class Protocol(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)
        if once:
            self.transport.close()

    # Back-pressure, as the others have it.
    def pause_writing(self):
        self.transport.pause_reading()

    def resume_writing(self):
        self.transport.resume_reading()


async def serve_asyncio():
    server = await asyncio.get_running_loop().create_server(Protocol, "127.0.0.1", 0, backlog=4096)
    listening(server.sockets[0])
    await server.serve_forever()


if mode == "asyncio":
    asyncio.run(serve_asyncio())
else:
    server = {"threading": ThreadingServer, "forking": ForkingServer}[mode](("127.0.0.1", 0), Echo)
    listening(server.socket)
    server.serve_forever()
