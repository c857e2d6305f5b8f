//! Verifications and verdicts: forms in, forms out.

use std::time::Duration;

use dacapo::Error;
use dacapo::operate::Requested;
use dacapo_api::{ApiError, Verification, VerificationRequest, VerifyRequest, VerifyResponse, Waiver};
use dacapo_model::Position;

use crate::in_time::in_time;
use crate::node::{About, Operations, asked, refused};

impl Operations {
    pub(crate) async fn verification(
        &self,
        projection: &str,
        request: VerificationRequest,
    ) -> Result<Verification, ApiError> {
        in_time(request.wait_ms, async move {
            let now = match self.about(projection, request.version.as_deref())? {
                About::Version(version) => version.verification(),
                About::Projection(projection) => projection.verification(),
            };
            let version = self.node().version(now.map_err(refused)?.view);
            let wait = Duration::from_millis(request.wait_ms.unwrap_or(0));
            match version.verified().within(wait).await {
                Ok(verified) => Ok(verification_form(&verified)),
                // A state without a verdict is an answer as well.
                Err(Error::TimedOut { .. }) => {
                    let now = version.verification().map_err(refused)?;
                    Ok(verification_form(&now))
                }
                Err(error) => Err(refused(error)),
            }
        })
        .await
    }

    pub(crate) async fn verify(&self, projection: &str, request: VerifyRequest) -> Result<VerifyResponse, ApiError> {
        in_time(None, async move {
            let verify = match self.about(projection, request.version.as_deref())? {
                About::Version(version) => version.verify_again(),
                About::Projection(projection) => projection.verify_again(),
            };
            Ok(requested_form(verify.requested_by(asked(request.asked)).await.map_err(refused)?))
        })
        .await
    }

    pub(crate) async fn waive(&self, projection: &str, request: VerifyRequest) -> Result<VerifyResponse, ApiError> {
        in_time(None, async move {
            let waive = match self.about(projection, request.version.as_deref())? {
                About::Version(version) => version.waive(),
                About::Projection(projection) => projection.waive(),
            };
            Ok(requested_form(waive.requested_by(asked(request.asked)).await.map_err(refused)?))
        })
        .await
    }
}

fn requested_form(requested: Requested<dacapo::verify::Verification>) -> VerifyResponse {
    VerifyResponse {
        projection: requested.view.projection.to_string(),
        version: requested.view.version.to_string(),
        requested: requested.position.map(Position::get),
    }
}

fn verification_form(verification: &dacapo::verify::Verification) -> Verification {
    let verified = verification.verified.as_ref();
    let waived = verified.and_then(|verified| verified.waived.clone());
    let verdict = verified.map(|verified| if verified.waived.is_some() { "Waived" } else { verified.verdict.as_str() });
    Verification {
        projection: verification.view.projection.to_string(),
        version: verification.view.version.to_string(),
        phase: verification.phase.to_string(),
        verdict: verdict.map(str::to_owned),
        position: verified.map(|verified| verified.position.get()),
        waived: waived.map(|(by, why)| Waiver { by, why }),
        again: verification.again,
        report: verified.map(|verified| (&*verified.report).into()),
        live: verification.live.as_ref().map(Into::into),
        waiting_on: verification.waiting_on.as_ref().map(Into::into),
        halts: verification.halts,
    }
}
