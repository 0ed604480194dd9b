"""Membership inference attacks, one a file; a new file registers itself."""

from dpnorm.plugins import import_modules

import_modules(__name__, __path__)
