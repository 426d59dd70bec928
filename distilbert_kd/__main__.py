"""`python -m distilbert_kd`, the form that `accelerate launch -m` takes."""

from distilbert_kd.cli import main


if __name__ == "__main__":
    main()
