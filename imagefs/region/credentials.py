"""Credentials of S3, from where every tool of AWS takes them; they are never kept.

boto3 takes a fifth of a second to import, so this module is imported when a region on S3 is first used.
"""

from __future__ import annotations

import boto3
import botocore.exceptions
from obstore.auth.boto3 import Boto3CredentialProvider

from imagefs.errors import AccessDenied, InvalidArgument

_DEFAULT_REGION = "us-east-1"


def find_credentials(profile: str | None) -> tuple[Boto3CredentialProvider, str]:
    """What renews credentials, and the region of S3 that goes with them.

    Raises `AccessDenied` when there are none, `InvalidArgument` for an unknown profile.
    """
    try:
        session = boto3.Session(profile_name=profile)
        if session.get_credentials() is None:
            raise AccessDenied(
                "No credentials for S3 found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run "
                "`aws configure`"
            )
        return Boto3CredentialProvider(session), session.region_name or _DEFAULT_REGION
    except botocore.exceptions.ProfileNotFound:
        raise InvalidArgument(f"The files of AWS know no profile {profile!r}") from None
    except botocore.exceptions.BotoCoreError as error:
        line = " ".join(str(error).split())
        raise AccessDenied(f"No credentials for S3 found: {line}") from None
