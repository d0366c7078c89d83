// Echo over TCP on Go's net, a goroutine for each connection: `echo echo|once`.
package main

import (
	"fmt"
	"net"
	"os"
	"runtime"
)

func main() {
	// One thread at a time, as the others have.
	runtime.GOMAXPROCS(1)
	once := len(os.Args) == 2 && os.Args[1] == "once"
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Printf("listening tcp://%s\n", listener.Addr())
	for {
		conn, err := listener.Accept()
		if err != nil {
			panic(err)
		}
		go echo(conn, once)
	}
}

func echo(conn net.Conn, once bool) {
	defer conn.Close()
	buffer := make([]byte, 65536)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return
		}
		if _, err := conn.Write(buffer[:n]); err != nil || once {
			return
		}
	}
}
