"""`python -m kanana_jax` is `kanana`."""

import sys

from kanana_jax.cli import main

sys.exit(main())
