"""Sends a UDP datagram to 127.0.0.1 that seems to come from there and a port of one's choice: forge.py FROM_PORT TO_PORT TEXT"""
import socket, struct, sys

source, target, data = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].encode()
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
# RFC 768; a checksum of zero is none.
raw.sendto(struct.pack("!HHHH", source, target, 8 + len(data), 0) + data, ("127.0.0.1", 0))
