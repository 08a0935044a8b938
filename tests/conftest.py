"""Eight devices for the tests of meshes; whatever asks for no mesh computes on the first alone."""

import jax

jax.config.update("jax_num_cpu_devices", 8)
