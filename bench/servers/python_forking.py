"""One echo a connection on Python's socketserver, each in a process that is forked for it."""
import socketserver


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(self.request.recv(65536))


class Server(socketserver.ForkingTCPServer):
    request_queue_size = 511


server = Server(("127.0.0.1", 0), Echo)
print("listening", "tcp://127.0.0.1:%d" % server.server_address[1], flush=True)
server.serve_forever()
