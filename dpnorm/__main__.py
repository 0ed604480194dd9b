"""python -m dpnorm: the command line, also as what torchrun starts."""

from dpnorm.cli import main

if __name__ == "__main__":
    main()
