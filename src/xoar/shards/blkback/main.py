"""The BlkBack shard: a Linux driver domain's only service."""

from xoar.blkback.agent import serve

if __name__ == "__main__":
    serve()
