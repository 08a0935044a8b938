"""`python -m grm_jax` is `grm`."""

import sys

from grm_jax.cli import main

sys.exit(main())
