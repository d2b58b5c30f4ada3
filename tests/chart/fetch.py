"""Runs beside Prometheus, where only it can be reached (another network namespace): standard library only.

`fetch.py port` prints a free loopback port. `fetch.py get` reads a JSON list of URLs from stdin and prints a JSON list
of [status, body]; status 0 means that nobody answered, and the body says why.
"""

import json
import socket
import sys
import urllib.error
import urllib.request


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310  the tests' own http URLs
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()
    except OSError as problem:
        return 0, str(problem)


if __name__ == "__main__":
    if sys.argv[1:] == ["port"]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            print(free.getsockname()[1])
    elif sys.argv[1:] == ["get"]:
        json.dump([get(url) for url in json.load(sys.stdin)], sys.stdout)
    else:
        sys.exit("usage: fetch.py port | get")
