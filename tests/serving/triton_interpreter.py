"""A pytest plug-in that gives vLLM's V2 model runner its Triton kernels on CPU, interpreted.

vLLM takes Triton on CPU if it has a backend of that name, which only forks of Triton do. Here is
one in name alone: with TRITON_INTERPRET=1 no kernel is ever compiled.
"""

from triton.backends import Backend, backends

backends["cpu"] = Backend(compiler=object, driver=object)
