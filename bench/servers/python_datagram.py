"""Echo of datagrams on Python's socketserver, the model of this package: `python_datagram.py udp://127.0.0.1:0` or `unixgram:/path`."""
import socketserver
import sys


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        data, socket = self.request
        socket.sendto(data, self.client_address)


address = sys.argv[1]
if address.startswith("unixgram:"):
    server = socketserver.UnixDatagramServer(address.removeprefix("unixgram:"), Echo)
else:
    server = socketserver.UDPServer(("127.0.0.1", 0), Echo)
    address = "udp://127.0.0.1:%d" % server.server_address[1]
print("listening", address, flush=True)
server.serve_forever()
