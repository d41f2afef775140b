"""A stage as one of several processes that share a CUDA device; torchrun starts this file.

NCCL refuses two processes of one machine on a device. What tells machines apart is NCCL_HOSTID:
with one of its own each process is taken for a machine, and all that they say goes over a network.
"""

import os
import runpy
import sys

if __name__ == "__main__":
    os.environ |= {"LOCAL_RANK": "0", "NCCL_HOSTID": os.environ["RANK"], "NCCL_SOCKET_IFNAME": "lo"}
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
